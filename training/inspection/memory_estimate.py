"""Memory of a training step, tensor by tensor: measured while it runs, or estimated without.

`LiveBytes` counts what operators allocate for as long as it lives. `estimate_memory` runs a step
under it on tensors that have shapes and no data (torch's fake tensors), so that a batch that would
need a machine's whole memory takes a second on any machine. What is not a tensor (the work space of
a convolution library, an allocator's rounding) is in neither.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..step import forward

OPTIMIZER_TENSORS = 2  # Adam and AdamW: mean and mean square of every gradient


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every tensor storage that operators make, while it lives."""

    def __init__(self, *existing: Tensor) -> None:
        super().__init__()
        self.sizes = {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in existing}
        self.current = self.peak = sum(self.sizes.values())
        self.on_peak: Callable[[], None] | None = None  # called at every new peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.current += storage.nbytes()
            if self.current > self.peak:
                self.peak = self.current
                if self.on_peak is not None:
                    self.on_peak()
            weakref.finalize(storage, self._remove, storage._cdata)

    def _remove(self, key: int) -> None:
        self.current -= self.sizes.pop(key, 0)


@dataclass(frozen=True)
class Memory:
    """Bytes alive at the worst moment of a training step, by what they are for.

    weights: parameters and buffers. gradients: those that are there at that moment. activations:
    all else, the input and passing work space too. total: their sum, with the optimizer's state.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(model: nn.Module, clips: Tensor, precision: torch.dtype) -> Memory:
    """A training step's memory. Call it under FakeTensorMode with a model and clips made there."""
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = _bytes([*model.parameters(), *model.buffers()])
    optimizer = OPTIMIZER_TENSORS * _bytes(trained)
    at_peak = [0, 0]  # all bytes, gradients

    def record_peak() -> None:
        at_peak[:] = live.peak, _bytes(p.grad for p in trained if p.grad is not None)

    model.train()
    with LiveBytes(clips, *model.parameters(), *model.buffers()) as live:
        live.on_peak = record_peak
        labels = clips.new_zeros(len(clips), dtype=torch.long)
        F.cross_entropy(forward(model, clips, precision), labels).backward()
    activations = at_peak[0] - at_peak[1] - weights
    if activations < _bytes(trained) - at_peak[1]:  # tiny clips: the peak is the optimizer's step
        return Memory(weights, _bytes(trained), optimizer, clips.nbytes)
    return Memory(weights, at_peak[1], optimizer, activations)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
