"""The four networks of the paper behind one door: `build(name, num_classes, ...)`.

Importing this package does not import torch (that alone takes more than a second, and `--help`
must answer in half of one); torch comes in when a network is built.

Every network takes float `[B,C,T,H,W]` and returns logits `[B,K]`, has a `transform` (its input), and keeps
its options' defaults in one place: its constructor's signature, which `options_of` reads.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from ..errors import HarError
from .weights import WeightsError, WeightsInfo

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "NAMES",
    "UnknownModelError",
    "WeightsError",
    "WeightsInfo",
    "build",
    "load_torchvision_state",
    "options_of",
]

_WHERE = {
    "resnet3d": ("har.models.resnet3d", "ResNet3D"),
    "r2plus1d": ("har.models.r2plus1d", "R2Plus1D"),
    "convlstm": ("har.models.convlstm", "ConvLSTM"),
    "r3d": ("har.models.r3d", "R3D"),
}
NAMES = tuple(_WHERE)


class UnknownModelError(HarError):
    """Asked for a network that is not one of the four; the message lists them."""


def build(name: str, num_classes: int, *, seed: int | None = None, **options: Any) -> nn.Module:
    """Build one of the four networks on the CPU, in float32, in training mode.

    name: one of `NAMES`.
    num_classes: K, the length of the logits.
    seed: initialise from this seed alone and leave the global generators as they were;
        None draws from the global generator, as torch modules do.
    options: what `options_of(name)` lists.

    Raises UnknownModelError for another name, ValueError for an option the network does not have
    or a value it does not allow, WeightsError where pretrained weights cannot be loaded.
    """
    network = _network(name)
    known = options_of(name)
    strange = sorted(set(options) - set(known))
    if strange:
        raise ValueError(
            f"model {name!r} has no option {', '.join(map(repr, strange))}; "
            f"its options are {', '.join(known)}"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if seed is None:
        return network(num_classes, **options)
    import torch

    # torch.manual_seed would also reseed every CUDA device; networks are built on the CPU, so
    # forking and seeding the CPU generator is enough and touches nothing else.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return network(num_classes, **options)


def options_of(name: str) -> dict[str, Any]:
    """The options of a network and their defaults, read from its constructor (imports torch)."""
    parameters = inspect.signature(_network(name).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def load_torchvision_state(model: nn.Module, state_dict: dict[str, Any]) -> None:
    """Load torchvision's `r3d_18` / `r2plus1d_18` state into our `resnet3d` / `r2plus1d`.

    The key map is documented at `har.models.resnet3d.TORCHVISION_KEYS`. Raises WeightsError, naming
    the first keys that do not fit; the model is then left as it was.
    """
    from .resnet3d import load_torchvision_state as load

    load(model, state_dict)


def _network(name: str) -> type[nn.Module]:
    if name not in _WHERE:
        raise UnknownModelError(f"there is no model {name!r}; choose one of {', '.join(NAMES)}")
    module, attribute = _WHERE[name]
    network: type[nn.Module] = getattr(importlib.import_module(module), attribute)
    return network
