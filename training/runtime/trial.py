"""A training step on made-up clips, before the first real one: to time it, or to see if it fits.

Odd: it leaves nothing behind. Gradients are gone afterwards, batch norm's statistics are as they
were, and the weights do not move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..input.device_loader import Preprocessing


def clips(count: int, wanted: Preprocessing, device: torch.device) -> torch.Tensor:
    """Noise in the shape and layout of a batch: float32 [count,3,T,h,w]."""
    import torch

    shape = (count, 3, wanted.frames, *wanted.size)
    return torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last_3d)


def gradient(model: nn.Module, batch: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """Forward and backward pass of `batch` -> the gradient of all parameters, [P]."""
    import torch
    import torch.nn.functional as F

    from ..loop import forward

    kept = [buffer.clone() for buffer in model.buffers()]
    try:
        torch.manual_seed(0)  # dropout
        logits = forward(model, batch, precision)  # [b,K]
        labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
        F.cross_entropy(logits, labels).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), kept, strict=True):
                buffer.copy_(value)
