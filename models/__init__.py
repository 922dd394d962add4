"""The four networks of the paper, and models of the user: `build(name, num_classes, ...)`.

Every network takes float `[B,3,T,H,W]` and returns logits `[B,K]`, has a `transform` (the input
it is made for), and keeps its options' defaults in one place, its constructor's signature (of the
residual networks that of `VideoResNet`), which `options_of` reads. Models of the user are named
`module:Class`, see `custom`.
"""

from numbers import Integral, Real
from typing import Any

import torch
from torch import nn

from ..errors import HarError
from ..shards.transforms.clip_transform import ClipTransform
from . import custom
from .convlstm import ConvLSTM, ConvLSTMLayer
from .custom import DEFAULT_HEAD, CustomModelError, allow, check_forward, freeze_parts, head_name
from .r2plus1d import R2Plus1D
from .r3d import R3D
from .resnet3d import ResNet3D
from .upgrade import upgrade_state_dict
from .weights import WeightsError, WeightsInfo, default_options, load_weights

__all__ = [
    "DEFAULT_HEAD", "NAMES", "R3D", "ConvLSTM", "ConvLSTMLayer", "CustomModelError", "R2Plus1D",
    "ResNet3D", "UnknownModelError", "WeightsError", "WeightsInfo", "allow", "build",
    "check_forward", "check_options", "freeze_parts", "head_name", "is_custom", "load_weights",
    "options_of", "transform_of", "upgrade_state_dict",
]  # fmt: skip

_CLASSES: dict[str, type[nn.Module]] = {
    "resnet3d": ResNet3D,
    "r2plus1d": R2Plus1D,
    "convlstm": ConvLSTM,
    "r3d": R3D,
}
NAMES = tuple(_CLASSES)


class UnknownModelError(HarError):
    """Asked for a network that is neither one of the four, which the message lists, nor `a:B`."""


def build(name: str, num_classes: int, *, seed: int | None = None, **options: Any) -> nn.Module:
    """Build a network on the CPU, in float32, in training mode.

    name: one of `NAMES`, `module:Class`, or an entry point of the group `har.models`.
    num_classes: K, the length of the logits.
    seed: initialize from this seed alone and leave the global generators as they were;
        None draws from the global generator, as torch modules do.
    options: what `options_of(name)` lists, and those of a model of the user without a default.

    Raises UnknownModelError for another name, ValueError for an option the network does not have
    or a value it does not allow, WeightsError where pretrained weights cannot be loaded,
    CustomModelError for a model of the user that is not there or not as docs/models.md says.
    """
    constructor = _find_constructor(name)
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if seed is None:
        return _construct(name, constructor, num_classes, options)
    # torch.manual_seed would also reseed every CUDA device; networks are built on the CPU, so
    # forking and seeding the CPU generator is enough and touches nothing else.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _construct(name, constructor, num_classes, options)


def options_of(name: str) -> dict[str, Any]:
    """The options of a network and their defaults, read from its constructor; of a model of the
    user those whose default is a plain value."""
    constructor = _find_constructor(name)
    if is_custom(name):
        return custom.list_options(name, constructor)
    return default_options(constructor)


_KINDS = {bool: (Integral, "true or false"), int: (Integral, "a whole number"),
          float: (Real, "a number")}  # fmt: skip


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise ValueError for a value of another type than the option's default; of a model of the
    user only for text where true or false belongs, for "False" would be true."""
    for option, default in options_of(name).items():
        value = options.get(option, default)
        if is_custom(name) and type(default) is not bool:
            continue
        if isinstance(default, tuple):
            default = default[0]
            if not isinstance(value, (list, tuple)):
                raise ValueError(f"{option} must be a list such as [32;64], got {value!r}")
        kind, text = _KINDS.get(type(default), (object, ""))
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(item, kind):
                raise ValueError(f"{option} must be {text}, got {item!r}")


def is_custom(name: str) -> bool:
    """Whether the name is of a model of the user, none of the four."""
    return name not in _CLASSES


def transform_of(model: nn.Module) -> ClipTransform:
    """The input that a network is made for; a model of the user need not say."""
    transform = getattr(model, "transform", None)
    return transform if isinstance(transform, ClipTransform) else ClipTransform()


def _find_constructor(name: str) -> custom.Constructor:
    if name in _CLASSES:
        return _CLASSES[name]
    try:
        return custom.load_constructor(name)
    except KeyError as error:
        raise UnknownModelError(
            f"there is no model {name!r}; choose one of {', '.join(NAMES)}, or name a class of "
            "your own as MODULE:CLASS"
        ) from error


def _construct(
    name: str, constructor: custom.Constructor, num_classes: int, options: dict[str, Any]
) -> nn.Module:
    if is_custom(name):
        return custom.construct(name, constructor, num_classes, options)
    known = options_of(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"model {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options are {', '.join(known)}"
        )
    return constructor(num_classes, **options)
