"""State dicts of older versions, whose residual networks had names other than torchvision's."""

import re
from collections.abc import Mapping

from torch import Tensor

_BLOCKS = (
    (r"^group(\d\.\d)\.conv(\d)\.spatial\.", r"layer\1.conv\2.0.0."),
    (r"^group(\d\.\d)\.conv(\d)\.norm\.", r"layer\1.conv\2.0.1."),
    (r"^group(\d\.\d)\.conv(\d)\.temporal\.", r"layer\1.conv\2.0.3."),
    (r"^group(\d\.\d)\.conv(\d)\.", r"layer\1.conv\2.0."),
    (r"^group(\d\.\d)\.norm(\d)\.", r"layer\1.conv\2.1."),
    (r"^group(\d\.\d)\.skip\.conv\.", r"layer\1.downsample.0."),
    (r"^group(\d\.\d)\.skip\.norm\.", r"layer\1.downsample.1."),
)
_RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "resnet3d": ((r"^stem\.conv\.", "stem.0."), (r"^stem\.norm\.", "stem.1."), *_BLOCKS),
    "r2plus1d": (
        (r"^stem\.conv\.spatial\.", "stem.0."),
        (r"^stem\.conv\.norm\.", "stem.1."),
        (r"^stem\.conv\.temporal\.", "stem.3."),
        (r"^stem\.norm\.", "stem.4."),
        *_BLOCKS,
    ),
}


def upgrade_state_dict(model_name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of an older version's state dict; keys of today stay as they are.

    The order of the entries stays too, so an optimizer's state, which goes by it, still fits.
    """
    return {_upgrade_key(model_name, key): value for key, value in state_dict.items()}


def _upgrade_key(model_name: str, key: str) -> str:
    for pattern, replacement in _RENAMES.get(model_name, ()):
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)
    return key
