"""From the shard set to tensors a model takes: loader -> device -> augmentation, one batch ahead.

Everything that trains, evaluates or benchmarks gets its batches here.

Notes:
- On a device with streams (cuda, xpu) the uint8 batch crosses on one of its own while the step
  before it computes, and its buffer is released when the copy's event has happened; augmentation
  runs on the device.
- Elsewhere the loader's workers augment clip by clip; for mps the batch is then copied, on the CPU
  it is ready. Its buffer is reused when nobody holds it any more.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...shards.format import Manifest
from ...shards.loading import Batch, BatchSampler, Loader, LoaderOptions, view_key
from ...shards.transforms.affine import Augmentation
from ...shards.transforms.clip_processor import ClipProcessor
from ...shards.transforms.clip_transform import ClipTransform
from ..runtime.device import stream_module
from ..runtime.step_timer import CopyEvents
from .gpu_cache import GpuCache


@dataclass(frozen=True)
class DeviceBatch:
    """One batch on the device. clips: [b,C,T,h,w]. labels, indices: int64 [b]. valid: bool [b].

    data_time: seconds that the host waited for the loader; 0 but on the CPU, whose clock tells it.
    copy_events: on a device with streams, events around its copy.
    """

    clips: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    valid: torch.Tensor
    data_time: float
    keys: list[str]
    step: int
    copy_events: CopyEvents | None = None


class DeviceLoader:
    """Batches of one subset of a split, ready for the model.

    options: of the loader; `frames`, `pin_memory` and, where it is None, `frame_stride` are set
    here. augmentation: None for the evaluation transform (resize, center crop). gpu_cache: keep the
    subset's clips on `device` (see `har.training.input.gpu_cache`).
    """

    def __init__(
        self,
        manifest: Manifest,
        sampler: BatchSampler,
        transform: ClipTransform,
        device: torch.device,
        options: LoaderOptions | None = None,
        *,
        augmentation: Augmentation | None = None,
        gpu_cache: bool = False,
    ) -> None:
        self._streams: Any = stream_module(device)
        has_streams = self._streams is not None
        self.transform, self.device = transform, device
        self._processor = ClipProcessor(transform, augmentation)
        options = options or LoaderOptions()
        self.loader = Loader(
            manifest,
            sampler,
            replace(
                options,
                frames=transform.frames,
                pin_memory=has_streams,
                frame_stride=options.frame_stride or transform.frame_stride,
            ),
            transform=None if has_streams else self._processor,
        )
        self._gpu_cache = GpuCache(self.loader, device) if gpu_cache else None
        self._copy_stream = None if self._streams is None else self._streams.Stream(device)

    @property
    def num_batches(self) -> int:
        """Batches an epoch."""
        return self.loader.num_batches

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[DeviceBatch]:
        """The batches of an epoch from step `start` on; the next is under way while one is used."""
        source = self.loader if self._gpu_cache is None else self._gpu_cache
        batches = source.epoch(epoch, start)
        if self._copy_stream is None:
            yield from self._epoch_without_streams(batches, epoch)
            return
        stream = self._streams.current_stream(self.device)
        upcoming = self._copy_next(batches, epoch)
        while (batch := upcoming) is not None:
            assert batch.copy_events is not None
            batch.copy_events.step_end.record(stream)  # all of the step before is queued
            upcoming = self._copy_next(batches, epoch)
            stream.wait_event(batch.copy_events.ready)
            for tensor in (batch.clips, batch.labels, batch.indices, batch.valid):
                tensor.record_stream(stream)
            batch.copy_events.step_start.record(stream)
            yield batch

    def keys(self, epoch: int, step: int) -> list[str]:
        """The keys of this rank's part of the batch at (epoch, step)."""
        return self.loader.manifest.keys(self.loader.sampler.batch(epoch, step).indices)

    def close(self) -> None:
        self.loader.close()

    def _epoch_without_streams(self, batches: Iterator[Batch], epoch: int) -> Iterator[DeviceBatch]:
        start = time.perf_counter()
        for host_batch in batches:
            if self._gpu_cache is None:
                clips = host_batch.detach().to(self.device)
            else:
                clips = self._augment(host_batch, epoch)
            data_time = time.perf_counter() - start if self.device.type == "cpu" else 0.0
            batch = self._device_batch(host_batch, clips, data_time)
            del host_batch, clips
            yield batch
            del batch  # or its buffer would stay in use while the next batch is waited for
            start = time.perf_counter()

    def _copy_next(self, batches: Iterator[Batch], epoch: int) -> DeviceBatch | None:
        """The next batch, copied and augmented on a stream of its own, and its events."""
        events = CopyEvents(*(self._streams.Event(enable_timing=True) for _ in range(5)))
        with self._streams.stream(self._copy_stream):
            host_batch = next(batches, None)
            if host_batch is None:
                return None
            events.copy_start.record(self._copy_stream)
            host_batch.pixels = host_batch.pixels.to(self.device, non_blocking=True)
            events.copy_end.record(self._copy_stream)
            clips = self._augment(host_batch, epoch)
            batch = self._device_batch(host_batch, clips, copy_events=events)
            events.ready.record(self._copy_stream)
        host_batch.release(events.copy_end)
        return batch

    def _augment(self, batch: Batch, epoch: int) -> torch.Tensor:
        """uint8 pixels, on whatever device they are -> [b,C,T,h,w] there."""
        seed, keys = self.loader.sampler.seed, batch.keys
        if batch.views is not None:
            keys = [view_key(key, view) for key, view in zip(keys, batch.views, strict=True)]
        return self._processor.process_batch(batch.pixels, keys=keys, seed=seed, epoch=epoch)

    def _device_batch(
        self,
        batch: Batch,
        clips: torch.Tensor,
        data_time: float = 0.0,
        copy_events: CopyEvents | None = None,
    ) -> DeviceBatch:
        labels, indices, valid = (
            torch.from_numpy(values).to(self.device, non_blocking=True)
            for values in (batch.labels, batch.indices, batch.valid)
        )
        return DeviceBatch(
            clips, labels, indices, valid, data_time, batch.keys, batch.step, copy_events
        )
