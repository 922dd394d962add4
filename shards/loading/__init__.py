"""Batches from a shard set: the sampler, worker threads, reused buffers.

`Loader` gives the batches of a `BatchSampler`; `ClipBatchDataset` gives the same batches to torch's
own DataLoader. `LoaderOptions` lists the options of both.
"""

from .batch_builder import CorruptClipWarning, Transform, view_key
from .batch_sampler import BatchIndices, BatchSampler, BatchSamplerError, check_resume
from .buffers import Batch
from .loader import Loader
from .options import CACHES, LoaderError, LoaderOptions
from .torch_dataset import ClipBatchDataset, StepSampler

__all__ = [
    "CACHES", "Batch", "BatchIndices", "BatchSampler", "BatchSamplerError", "ClipBatchDataset",
    "CorruptClipWarning", "Loader", "LoaderError", "LoaderOptions", "StepSampler", "Transform",
    "check_resume", "view_key",
]  # fmt: skip
