"""How batches are read: the one list of the options of `Loader` and `ClipBatchDataset`."""

from dataclasses import dataclass

from ...errors import HarError

CACHES = ("none", "ram")


class LoaderError(HarError):
    """An option that does not fit the shards, a stuck worker, no free buffer; one sentence."""


@dataclass(frozen=True)
class LoaderOptions:
    """frames: clip length to give, evenly spaced over the stored frames; None for all of them.
    frame_stride: instead, a window of every so many-th stored frame; (least, most) for a stride
    that temporal_jitter draws too (without it: the middle).
    temporal_jitter: start at a random offset, drawn for each clip and epoch.
    windows: of pretraining: the views of a clip show so many windows of it (`random_windows`), each
    of them as often as the others; 0 for none.
    workers: threads; 0 reads in the caller's thread.
    prefetch_batches: batches read ahead of the caller.
    pin_memory: page-locked buffers, for copies to CUDA.
    verify_checksums: compare the pixels of every read with the checksum in the index.
    max_corrupt: so many corrupt clips are replaced by others before the loader raises.
    cache: "ram" keeps every clip that was read in memory.
    timeout: seconds after which a worker that is still at the same clip counts as stuck.
    """

    frames: int | None = None
    frame_stride: int | tuple[int, int] | None = None
    temporal_jitter: bool = False
    windows: int = 0
    workers: int = 2
    prefetch_batches: int = 2
    pin_memory: bool = False
    verify_checksums: bool = True
    max_corrupt: int = 0
    cache: str = "none"
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise LoaderError(f"unknown cache {self.cache!r}: choose one of {', '.join(CACHES)}.")
        limits = (("workers", 0), ("prefetch_batches", 1), ("max_corrupt", 0), ("windows", 0))
        for name, least in limits:
            if getattr(self, name) < least:
                raise LoaderError(f"{name} = {getattr(self, name)}: give {least} or more.")
        if self.strides is not None and not 1 <= self.strides[0] <= self.strides[1]:
            raise LoaderError(
                f"frame_stride = {self.frame_stride}: give 1 or more, or (least, most)."
            )

    @property
    def strides(self) -> tuple[int, int] | None:
        """The least and the most stride of a window; None for evenly spaced frames."""
        stride = self.frame_stride
        return (stride, stride) if isinstance(stride, int) else stride
