"""One clip into its row of a batch, for `Loader` and `ClipBatchDataset` alike.

Which frames of a clip are taken (`temporal_sampling`) is random for the key and epoch
(`LoaderOptions.temporal_jitter`; `windows`, of pretraining), or depends on the view
(`BatchSampler.views`).

Notes: all stored frames are read, for the checksum of a clip is one of all of them.
"""

import threading
import warnings
from collections.abc import Callable

import numpy as np
import torch

from ...errors import HarWarning
from ..format import ClipReader, Manifest, ShardSetError
from ..transforms.affine import generator
from ..transforms.clip_processor import ClipProcessor
from ..transforms.temporal_sampling import (
    eval_stride,
    max_views,
    num_starts,
    random_frames,
    random_windows,
    view_frames,
)
from .batch_sampler import BatchIndices, BatchSampler
from .buffers import Batch, BufferPool
from .options import LoaderError, LoaderOptions

# or a function: uint8 [T,H,W,C] -> array or CPU tensor, of one shape and dtype for all clips
Transform = ClipProcessor | Callable[[np.ndarray], "np.ndarray | torch.Tensor"]


class CorruptClipWarning(HarWarning):
    """A corrupt clip was replaced by another one."""


class BatchBuilder:
    """Fills rows of the batches of `sampler`, from any number of threads.

    transform: see `Loader`. shape, dtype: of a row. frames: T. channels_first: whether a batch
    shows its [b,T,h,w,C] as [b,C,T,h,w]. corrupt: clips that were replaced, index -> what is wrong.
    heartbeat: called while a shard of a remote set is waited for.
    Raises LoaderError for frames or views that the stored clips do not have.
    """

    def __init__(
        self,
        manifest: Manifest,
        sampler: BatchSampler,
        options: LoaderOptions,
        transform: Transform | None = None,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self.manifest, self.sampler, self.options = manifest, sampler, options
        self.frames = _check_frames(manifest, sampler, options)
        self.transform, self.channels_first = transform, isinstance(transform, ClipProcessor)
        self.shape, self.dtype = self._row_format()
        self.corrupt: dict[int, str] = {}
        self._corrupt_lock = threading.Lock()
        self.reader = ClipReader(
            manifest,
            verify_checksums=options.verify_checksums,
            keep=options.cache == "ram",
            heartbeat=heartbeat,
        )

    def fill_row(self, epoch: int, batch: BatchIndices, row: int, out: np.ndarray) -> None:
        """One clip into `out`; a corrupt one is replaced, and `batch` changed, or it raises."""
        index = int(batch.indices[row])
        while True:
            try:  # a StorageError passes: the clip is not corrupt, the others are out of reach too
                self._write(epoch, index, int(batch.views[row]), out)
                break
            except ShardSetError as error:
                self._count_corrupt(index, error)
                index = self._next_intact(index)
        if index != batch.indices[row]:
            batch.indices[row] = index
            if not self.sampler.shuffle:  # in an evaluation the other clip counts elsewhere
                batch.valid[row] = False

    def finish(
        self,
        epoch: int,
        step: int,
        batch: BatchIndices,
        pixels: torch.Tensor,
        slot: int = -1,
        pool: BufferPool | None = None,
    ) -> Batch:
        """-> the batch; clips that this rank left out of an evaluation are not in `num_valid`."""
        num_valid = batch.num_valid
        if self.corrupt and not self.sampler.shuffle:
            lost = self.sampler.batch(epoch, step).valid & ~batch.valid & (batch.views == 0)
            num_valid -= int(lost.sum())
        indices = batch.indices
        labels = self.manifest.index["label"][indices].astype(np.int64)
        return Batch(
            step, pixels, labels, indices, batch.valid, num_valid, self.manifest.keys(indices),
            batch.views, slot, pool,
        )  # fmt: skip

    def frame_indices(self, epoch: int, index: int, view: int = 0) -> np.ndarray:
        """Which stored frames: int64 [frames]."""
        stored, strides = self.manifest.clip_shape[0], self.options.strides
        if count := self.options.windows:
            draw = generator(self.sampler.seed, epoch, f"{self._key(index)}/windows")
            windows = random_windows(stored, self.frames, count, draw)
            return windows[view * count // self.sampler.views]
        if self.options.temporal_jitter:
            random = generator(self.sampler.seed, epoch, f"{self._key(index)}/phase")
            return random_frames(stored, self.frames, strides, random)
        return view_frames(stored, self.frames, eval_stride(strides), view, self.sampler.views)

    def _row_format(self) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of a row; a caller's own transform is asked with a black clip."""
        _, height, width, channels = self.manifest.clip_shape
        stored = (self.frames, height, width, channels)
        if self.transform is None:
            return stored, np.dtype(np.uint8)
        if isinstance(self.transform, ClipProcessor):
            size = self.transform.transform.crop_size
            return (self.frames, *size, channels), np.dtype(np.float32)
        result = np.asarray(self.transform(np.zeros(stored, np.uint8)))
        return result.shape, result.dtype

    def _write(self, epoch: int, index: int, view: int, out: np.ndarray) -> None:
        all_frames = self.frames == self.manifest.clip_shape[0]
        if self.transform is None and all_frames:
            self.reader.read_into(index, out)
            return
        clip = self.reader.scratch()
        self.reader.read_into(index, clip)
        if not all_frames:
            frames = self.frame_indices(epoch, index, view)
            clip = np.take(clip, frames, axis=0, out=out if self.transform is None else None)
        if self.transform is None:
            return
        key = view_key(self._key(index), view)
        if isinstance(self.transform, ClipProcessor):
            self.transform.process_clip(clip, out, key=key, seed=self.sampler.seed, epoch=epoch)
            return
        result = np.asarray(self.transform(clip))
        if (result.shape, result.dtype) != (self.shape, self.dtype):
            raise LoaderError(
                f"the transform gave {result.dtype} {list(result.shape)} for {key} and {self.dtype}"
                f" {list(self.shape)} for a black clip: give one shape and dtype for all clips."
            )
        np.copyto(out, result)

    def _key(self, index: int) -> str:
        key: bytes = self.manifest.index["key"][index]
        return key.decode()

    def _count_corrupt(self, index: int, error: ShardSetError) -> None:
        """Note a corrupt clip; raise its error when there are more than `max_corrupt`."""
        limit = self.options.max_corrupt
        with self._corrupt_lock:
            if index in self.corrupt:
                return
            if len(self.corrupt) >= limit:
                if limit == 0:
                    raise error
                raise ShardSetError(
                    f"more than {limit} clips are corrupt, the last: {error}"
                ) from error
            self.corrupt[index] = str(error)
        warnings.warn(f"replaced a corrupt clip: {error}", CorruptClipWarning, stacklevel=2)

    def _next_intact(self, index: int) -> int:
        """The clip after `index` in the sampler's stored order that is not known to be corrupt."""
        indices = self.sampler.indices
        position = int(np.flatnonzero(indices == index)[0])
        for other in np.roll(indices, -position - 1)[:-1].tolist():
            if other not in self.corrupt:
                return int(other)
        raise ShardSetError(f"every clip of this subset of {self.manifest.root} is corrupt.")


def view_key(key: str, view: int) -> str:
    """What the augmentation of a view is drawn by; view 0's is the clip's own key."""
    return f"{key}/view-{view}" if view else key


def _check_frames(manifest: Manifest, sampler: BatchSampler, options: LoaderOptions) -> int:
    """-> the frames of a clip. Raises LoaderError."""
    stored = manifest.clip_shape[0]
    frames = stored if options.frames is None else options.frames
    clips = f"the clips in {manifest.root} hold {stored}"
    if not 1 <= frames <= stored:
        raise LoaderError(
            f"{frames} frames asked for and {clips}: use --frames {stored} or fewer, or build "
            "shards with more frames."
        )
    if options.windows * frames > stored:
        raise LoaderError(
            f"{options.windows} windows of {frames} frames asked for and {clips}: use --frames "
            f"{stored // options.windows} or fewer, fewer --windows, or shards with more frames."
        )
    if (strides := options.strides) and num_starts(stored, frames, strides[1]) < 1:
        span = (frames - 1) * strides[1] + 1
        raise LoaderError(
            f"{frames} frames of stride {strides[1]} span {span} frames and {clips}: use "
            f"--frame-stride {(stored - 1) // (frames - 1)} or less, fewer --frames, or build "
            "shards with more frames."
        )
    most = max_views(stored, frames, eval_stride(strides))
    if not options.windows and sampler.views > most:
        raise LoaderError(
            f"{sampler.views} views of {frames} frames asked for and {clips} frames: use at most "
            f"{most}, or build shards with more frames."
        )
    return frames
