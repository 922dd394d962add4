"""What a network wants to be fed: frames, sizes, normalisation, and whether to augment.

Kept free of torch, so that config code and `--help` can read it at once. A checkpoint stores the
spec beside the weights (`to_dict`), because a network fed with another normalisation than the one
it was trained on still runs, and is quietly worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# Kinetics-400 statistics, as in torchvision's r3d_18 weights; the test compares the two.
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


@dataclass(frozen=True)
class InputSpec:
    """The preprocessing a model was built for; sizes are (height, width) in pixels.

    frames: clip length T the defaults were chosen for; the networks take any T >= 1.
    resize: every frame is resized to this first.
    size: then this crop is taken (the centre at test time).
    mean, std: per RGB channel, for pixels scaled to [0, 1].
    augment: False for the pretrained model, which the paper (S3.2) feeds without augmentation.
    """

    frames: int = 16
    size: tuple[int, int] = (112, 112)
    resize: tuple[int, int] = (128, 171)
    mean: tuple[float, float, float] = KINETICS_MEAN
    std: tuple[float, float, float] = KINETICS_STD
    augment: bool = True

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"an input spec needs at least 1 frame, got {self.frames}")
        if min(*self.size, *self.resize) < 1:
            raise ValueError(f"sizes must be positive, got {self.size} cut from {self.resize}")
        if self.size[0] > self.resize[0] or self.size[1] > self.resize[1]:
            raise ValueError(f"a crop of {self.size} does not fit into frames of {self.resize}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive in every channel, got {self.std}")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON or a `weights_only` checkpoint."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """The spec that `to_dict` wrote. Raises ValueError on a key it does not know."""
        known = {field.name for field in fields(cls)}
        strange = sorted(set(values) - known)
        if strange:
            raise ValueError(
                f"an input spec has no field {', '.join(map(repr, strange))}; "
                f"its fields are {', '.join(sorted(known))}"
            )
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)
