"""From the shard set to tensors a model takes: loader -> device -> augmentation, one batch ahead.

Everything that trains, evaluates or benchmarks gets its batches here, so that there is one way
for the data.

Odd: on CUDA the uint8 batch crosses on a stream of its own while the step before it computes, and
its slot goes back to the ring when the copy's event has happened; augmentation runs on the device.
On the CPU the loader's workers augment clip by clip and the batch comes ready; its memory goes back
to the loader when nobody holds `DeviceBatch.clips` any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...shards.format.shard_set import Manifest
from ...shards.loading.batch_sampler import BatchSampler
from ...shards.loading.loader import Batch, Loader
from ...shards.transforms import affine
from ...shards.transforms.clip_processor import ClipProcessor
from ...shards.transforms.clip_transform import ClipTransform
from ..runtime import step_timer
from .gpu_cache import GpuCache

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DeviceBatch:
    """One batch on the device. clips: [b,C,T,h,w]. labels, ids: int64 [b]. valid: bool [b].

    counted: valid clips of the global batch. waited: seconds the host spent waiting for the loader.
    marks: on CUDA, of the steps that are timed, the events around the batch's way in.
    """

    clips: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor
    valid: torch.Tensor
    counted: int
    waited: float
    keys: list[str]
    step: int
    marks: step_timer.CopyEvents | None = None


class DeviceLoader:
    """Batches of one side of a split, ready for the model.

    rule: how to augment, None for the evaluation transform (resize, centre crop). max_bad: so many
    corrupt clips are replaced (see `Loader.bad`) before the run stops. cache: see `Loader`; `gpu`
    keeps the side's clips on `device` (see `har.training.input.gpu_cache`).
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: BatchSampler,
        preprocessing: ClipTransform,
        device: torch.device,
        *,
        rule: affine.Augmentation | None = None,
        jitter: bool = False,
        workers: int = 2,
        max_bad: int = 0,
        cache: str = "none",
    ) -> None:
        import torch

        cuda = device.type == "cuda"
        wanted = preprocessing
        self._processor = ClipProcessor(wanted, rule)
        self.loader = Loader(
            manifest,
            plan,
            frames=wanted.frames,
            jitter=jitter,
            workers=workers,
            pinned=cuda,
            processor=None if cuda else self._processor,
            max_bad=max_bad,
            cache="none" if cache == "gpu" else cache,
        )
        self._resident = GpuCache(self.loader, device, workers) if cache == "gpu" else None
        self.preprocessing, self.device, self.rule = preprocessing, device, rule
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self.loader.steps

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[DeviceBatch]:
        """The batches of an epoch from step `start` on; the next is under way while one is used."""
        source = self.loader if self._resident is None else self._resident
        batches = source.epoch(epoch, start)
        if self._copies is None:
            yield from self._on_cpu(batches, epoch)
            return
        import torch

        stream = torch.cuda.current_stream(self.device)
        ahead = self._next(batches, epoch, first=start)
        while ahead is not None:
            ready, arrived = ahead
            if ready.marks is not None:
                ready.marks.done.record(stream)  # all of the step before is in the queue
            ahead = self._next(batches, epoch, first=start)
            stream.wait_event(arrived)
            for tensor in (ready.clips, ready.labels, ready.ids, ready.valid):
                tensor.record_stream(stream)
            if ready.marks is not None:
                ready.marks.go.record(stream)
            yield ready

    def close(self) -> None:
        self.loader.close()

    def _on_cpu(self, batches: Iterator[Batch], epoch: int) -> Iterator[DeviceBatch]:
        start = time.perf_counter()
        for batch in batches:
            clips = batch.lend() if self._resident is None else self._augmented(batch, epoch)
            waited = time.perf_counter() - start
            ready = self._ready(batch, clips, waited)
            del batch, clips
            yield ready
            del ready  # or its slot would stay lent while the next batch is waited for
            start = time.perf_counter()

    def _next(
        self, batches: Iterator[Batch], epoch: int, first: int
    ) -> tuple[DeviceBatch, torch.cuda.Event] | None:
        """The next batch, sent off to the device on a stream of its own. first: of the epoch."""
        import torch

        start = time.perf_counter()
        with torch.cuda.stream(self._copies):
            batch = next(batches, None)
            if batch is None:
                return None
            waited = time.perf_counter() - start
            timing = step_timer.timed(batch.step - first, self.steps - first)
            began, copied, arrived = (torch.cuda.Event(enable_timing=timing) for _ in range(3))
            began.record(self._copies)
            batch.pixels = batch.pixels.to(self.device, non_blocking=True)
            copied.record(self._copies)
            ready = self._ready(batch, self._augmented(batch, epoch), waited)
            arrived.record(self._copies)
            if timing:
                done, go = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                ready = replace(
                    ready, marks=step_timer.CopyEvents(done, began, copied, arrived, go)
                )
        batch.release(copied)
        return ready, arrived

    def _augmented(self, batch: Batch, epoch: int) -> torch.Tensor:
        """uint8 pixels, on whatever device they are -> [b,C,T,h,w] there."""
        seed = self.loader.plan.seed
        return self._processor.process_batch(batch.pixels, keys=batch.keys, seed=seed, epoch=epoch)

    def _ready(self, batch: Batch, clips: torch.Tensor, waited: float) -> DeviceBatch:
        import torch

        labels, ids, valid = (
            torch.from_numpy(values).to(self.device, non_blocking=True)
            for values in (batch.labels, batch.ids, batch.valid)
        )
        return DeviceBatch(clips, labels, ids, valid, batch.counted, waited, batch.keys, batch.step)
