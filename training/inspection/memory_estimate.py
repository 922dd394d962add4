"""Memory of a training step, tensor by tensor: measured while it runs, or foretold without running.

`LiveBytes` counts what operators allocate for as long as it lives. `foretell` runs a step under it
on tensors that have shapes and no data (torch's fake tensors), so that a batch that would need a
machine's whole memory is worked out in a second on any machine. What is not a tensor (the work
space of a convolution library, an allocator's rounding) is in neither.
"""

from __future__ import annotations

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

    def __init__(self, *there: Tensor) -> None:
        super().__init__()
        self.sizes = {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in there}
        self.now = self.peak = sum(self.sizes.values())
        self.at_peak: Callable[[], None] | None = None  # called at every new peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            if self.now > self.peak:
                self.peak = self.now
                if self.at_peak is not None:
                    self.at_peak()
            weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


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


def foretell(model: nn.Module, clips: Tensor, precision: torch.dtype) -> Memory:
    """A training step's memory. Call it under FakeTensorMode with a model and clips made there."""
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = _bytes([*model.parameters(), *model.buffers()])
    optimizer = OPTIMIZER_TENSORS * _bytes(trained)
    worst = [0, 0]  # all, gradients

    def note() -> None:
        worst[:] = live.peak, _bytes(p.grad for p in trained if p.grad is not None)

    model.train()
    with LiveBytes(clips, *model.parameters(), *model.buffers()) as live:
        live.at_peak = note
        labels = clips.new_zeros(len(clips), dtype=torch.long)
        F.cross_entropy(forward(model, clips, precision), labels).backward()
    activations = worst[0] - worst[1] - weights
    if activations < _bytes(trained) - worst[1]:  # tiny clips: worst is the optimizer's turn
        return Memory(weights, _bytes(trained), optimizer, clips.nbytes)
    return Memory(weights, worst[1], optimizer, activations)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
