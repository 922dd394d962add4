"""The four networks of the paper: `build(name, num_classes, ...)`.

Every network takes float `[B,3,T,H,W]` and returns logits `[B,K]`, has a `transform` (the input
it is made for), and keeps its options' defaults in one place: its constructor's signature, which
`options_of` reads.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from ..errors import HarError
from .convlstm import ConvLSTM, ConvLSTMLayer
from .r2plus1d import R2Plus1D
from .r3d import R3D
from .resnet3d import ResNet3D
from .upgrade import upgrade_state_dict
from .weights import WeightsError, WeightsInfo

__all__ = [
    "NAMES",
    "R3D",
    "ConvLSTM",
    "ConvLSTMLayer",
    "R2Plus1D",
    "ResNet3D",
    "UnknownModelError",
    "WeightsError",
    "WeightsInfo",
    "build",
    "options_of",
    "upgrade_state_dict",
]

_CLASSES: dict[str, type[nn.Module]] = {
    "resnet3d": ResNet3D,
    "r2plus1d": R2Plus1D,
    "convlstm": ConvLSTM,
    "r3d": R3D,
}
NAMES = tuple(_CLASSES)


class UnknownModelError(HarError):
    """Asked for a network that is not one of the four; the message lists them."""


def build(name: str, num_classes: int, *, seed: int | None = None, **options: Any) -> nn.Module:
    """Build one of the four networks on the CPU, in float32, in training mode.

    name: one of `NAMES`.
    num_classes: K, the length of the logits.
    seed: initialize from this seed alone and leave the global generators as they were;
        None draws from the global generator, as torch modules do.
    options: what `options_of(name)` lists.

    Raises UnknownModelError for another name, ValueError for an option the network does not have
    or a value it does not allow, WeightsError where pretrained weights cannot be loaded.
    """
    known = options_of(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"model {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options are {', '.join(known)}"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if seed is None:
        return _CLASSES[name](num_classes, **options)
    # torch.manual_seed would also reseed every CUDA device; networks are built on the CPU, so
    # forking and seeding the CPU generator is enough and touches nothing else.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _CLASSES[name](num_classes, **options)


def options_of(name: str) -> dict[str, Any]:
    """The options of a network and their defaults, read from its constructor."""
    if name not in _CLASSES:
        raise UnknownModelError(f"there is no model {name!r}; choose one of {', '.join(NAMES)}")
    parameters = inspect.signature(_CLASSES[name].__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
