"""What turns stored clips into a network's input: number of frames, crop, normalisation.

Each network has one as its `transform`, a run's checkpoint holds it under "preprocessing", loader
and prediction read it. This module imports the standard library only, for models and `--help`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

# Kinetics-400 statistics, as in torchvision's r3d_18 weights; a test compares the two.
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


@dataclass(frozen=True)
class ClipTransform:
    """Resize, center crop and normalisation of a clip; sizes are (height, width) in pixels.

    frames: clip length T. resize_size: every frame is resized to this before the center crop of
    `crop_size` (an augmentation takes its random crop of `crop_size` from the stored frame
    instead). mean, std: per channel, for pixels scaled to 0..1. frame_stride: None for T frames
    spread over all stored ones, else the distance of two in a window (`temporal_sampling`).
    """

    frames: int = 16
    crop_size: tuple[int, int] = (112, 112)
    resize_size: tuple[int, int] = (128, 171)
    mean: tuple[float, ...] = KINETICS_MEAN
    std: tuple[float, ...] = KINETICS_STD
    frame_stride: int | None = None

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"a clip needs at least 1 frame, got {self.frames}.")
        if min(*self.crop_size, *self.resize_size) < 1:
            raise ValueError(
                f"sizes must be positive, got {self.crop_size} cut from {self.resize_size}."
            )
        if any(crop > full for crop, full in zip(self.crop_size, self.resize_size, strict=True)):
            raise ValueError(
                f"a crop of {self.crop_size} does not fit into frames of {self.resize_size}."
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive in every channel, got {self.std}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON or a `weights_only` checkpoint; without a stride
        that is None."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote; other entries are ignored. Raises ValueError if one is missing."""
        names = [field.name for field in fields(cls) if field.name != "frame_stride"]
        missing = [name for name in names if name not in values]
        if missing:
            raise ValueError(
                f"the clip transform has no {', '.join(missing)}: it needs {', '.join(names)}."
            )
        plain: dict[str, Any] = {
            name: tuple(values[name]) if isinstance(values[name], list) else values[name]
            for name in names
        }
        return cls(**plain, frame_stride=values.get("frame_stride"))
