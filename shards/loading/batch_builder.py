"""One clip into its row of a batch: which frames, augmented or not, and what if it is corrupt.

What a batch holds is decided here, whoever makes it: the loader's threads (`har.shards.loading.loader`) or
torch's worker processes (`har.shards.loading.torch_dataset`).

Odd: which frames of a clip are read is a phase in 0..1: 0, drawn for the key and epoch (`jitter`),
or k/K for view k of K (`BatchSampler.views`).
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import numpy as np

from ...errors import HarError
from ..format.reader import ClipReader
from ..format.shard_set import Manifest, ShardSetError
from ..storage.remote import RemoteError
from ..transforms import affine
from ..transforms.clip_processor import ClipProcessor
from .batch_sampler import BatchIndices, BatchSampler

CACHES = ("none", "ram")


class LoaderError(HarError):
    """More frames or views asked for than stored, an unknown cache, a stuck worker, a ring never
    given back; one sentence."""


class BadClipWarning(UserWarning):
    """A corrupt clip was replaced by another one."""


class BatchBuilder:
    """Fills rows of batches of `plan`; the options are those of `har.shards.loading.loader.Loader`.

    shape, floats: of a row, uint8 [t,H,W,C] or, with `processor`, float32 [t,h,w,C]. bad: what was
    replaced, sample id -> what is wrong with it. Any number of threads may fill.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: BatchSampler,
        *,
        frames: int | None = None,
        jitter: bool = False,
        check: bool = True,
        processor: ClipProcessor | None = None,
        max_bad: int = 0,
        cache: str = "none",
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        if cache not in CACHES:
            raise LoaderError(f"unknown cache {cache!r}: choose one of {', '.join(CACHES)}.")
        stored, height, width, channels = manifest.clip_shape
        self.frames = stored if frames is None else frames
        if not 1 <= self.frames <= stored:
            raise LoaderError(
                f"{self.frames} frames asked for and the clips in {manifest.root} hold {stored}: "
                f"use --frames {stored} or fewer, or build shards with more frames."
            )
        most = views_in(stored, self.frames)
        if plan.views > most:
            raise LoaderError(
                f"{plan.views} views of {self.frames} frames asked for and the clips in "
                f"{manifest.root} hold {stored} frames: use at most {most}, or build shards with "
                "more frames."
            )
        self.manifest, self.plan, self.jitter = manifest, plan, jitter
        self.processor, self.max_bad = processor, max_bad
        self.bad: dict[int, str] = {}
        self._bad_lock = threading.Lock()
        self.reader = ClipReader(manifest, check=check, keep=cache == "ram", beat=beat)
        size = (height, width) if processor is None else processor.transform.crop_size
        self.shape, self.floats = (self.frames, *size, channels), processor is not None

    def rows(self, epoch: int, step: int) -> BatchIndices:
        """The plan's rows, to be changed where a clip is bad."""
        rows = self.plan.rows(epoch, step)
        return BatchIndices(rows.ids.copy(), rows.valid.copy(), rows.counted, rows.views)

    def counted(self, epoch: int, step: int, rows: BatchIndices) -> int:
        """`rows.counted` when the rows are filled: less those that this rank had to leave out."""
        if not self.bad or self.plan.shuffle:
            return rows.counted
        lost = self.plan.rows(epoch, step).valid & ~rows.valid & (rows.views == 0)
        return rows.counted - int(lost.sum())

    def fill(self, epoch: int, rows: BatchIndices, row: int, out: np.ndarray) -> None:
        """One clip into `out`; a corrupt one is replaced, and `rows` says so, or it raises."""
        sample = first = int(rows.ids[row])
        while True:
            try:
                self._put(epoch, sample, int(rows.views[row]), out)
                break
            except RemoteError:  # no clip is corrupt, the others cannot be had either
                raise
            except ShardSetError as error:
                self._count_bad(sample, error)
                sample = self._next_good(sample)
        if sample != first:
            rows.ids[row] = sample
            if not self.plan.shuffle:  # in an evaluation the other clip counts elsewhere
                rows.valid[row] = False

    def frame_numbers(self, epoch: int, sample: int, view: int = 0) -> np.ndarray:
        """Which stored frames: int64 [frames], evenly spaced from the clip's phase on."""
        stored = self.manifest.clip_shape[0]
        phase = view / self.plan.views
        if self.jitter:
            key = self.manifest.index["key"][sample].decode()
            phase = affine.generator(self.plan.seed, epoch, f"{key}/phase").random()
        return ((np.arange(self.frames) + phase) * stored / self.frames).astype(np.int64)

    def _put(self, epoch: int, sample: int, view: int, out: np.ndarray) -> None:
        whole = self.frames == self.manifest.clip_shape[0]
        if self.processor is None and whole:
            self.reader.read_into(sample, out)
            return
        if self.processor is None:
            self.reader.read_frames_into(sample, self.frame_numbers(epoch, sample, view), out)
            return
        clip = self.reader.scratch()
        self.reader.read_into(sample, clip)
        if not whole:
            clip = clip[self.frame_numbers(epoch, sample, view)]
        key = self.manifest.index["key"][sample].decode()
        self.processor.process_clip(clip, out, key=key, seed=self.plan.seed, epoch=epoch)

    def _count_bad(self, sample: int, error: ShardSetError) -> None:
        """Note a corrupt clip; raise its error when there are more than `max_bad`."""
        with self._bad_lock:
            if sample in self.bad:
                return
            if len(self.bad) >= self.max_bad:
                if self.max_bad == 0:
                    raise error
                raise ShardSetError(
                    f"more than {self.max_bad} clips are corrupt, the last: {error}"
                ) from error
            self.bad[sample] = str(error)
        warnings.warn(f"replaced a corrupt clip: {error}", BadClipWarning, stacklevel=2)

    def _next_good(self, sample: int) -> int:
        """The clip after `sample` in the plan's own order that is not known to be bad."""
        ids = self.plan.ids
        at = int(np.flatnonzero(ids == sample)[0])
        for other in np.roll(ids, -at - 1)[:-1].tolist():
            if other not in self.bad:
                return int(other)
        raise ShardSetError(f"every clip of this side of {self.manifest.root} is corrupt.")


def views_in(stored: int, frames: int) -> int:
    """Views of `frames` frames that a clip of `stored` ones gives, no frame in two of them."""
    return stored // frames
