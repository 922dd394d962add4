"""Videos of another shape than the clips: which, and what was done with them, in words."""

from collections import Counter
from collections.abc import Mapping

from .plan import BuildOptions

_TOLERANCE = 1.05  # of the proportions: 320x240 is shown by 171x128
_MAX_SIZES = 3
_DONE = {
    "squeeze": "they are squeezed to it; a build with --fit crop or pad keeps their proportions",
    "crop": "they are cut to it, around their center",
    "pad": "they have black bars",
}


def other_shape(source_size: tuple[int, int], clip_size: tuple[int, int]) -> str:
    """ "1280x720" (height x width) for frames of other proportions than the clip's, else ""."""
    (H, W), (h, w) = source_size, clip_size
    ratio = H * w / (W * h)
    return f"{H}x{W}" if max(ratio, 1 / ratio) > _TOLERANCE else ""


def describe_shapes(
    shapes: Mapping[str, Mapping[str, int]], num_videos: int, options: BuildOptions
) -> str | None:
    """One sentence; None where all videos have the clips' shape.

    shapes: shard -> frame size ("640x480") -> how many videos have it, of those of another shape.
    """
    counts = sum(map(Counter, shapes.values()), Counter[str]())
    if not counts:
        return None
    parts = [f"{count} of {size}" for size, count in counts.most_common(_MAX_SIZES)]
    if len(counts) > _MAX_SIZES:
        parts.append(f"{len(counts) - _MAX_SIZES} more sizes")
    heights = ((*map(int, size.split("x")), count) for size, count in counts.items())
    num_portrait = sum(count for height, width, count in heights if height > width)
    portrait = f", {num_portrait} of them portrait" if num_portrait else ""
    return (
        f"{counts.total()} of {num_videos} videos {'has' if counts.total() == 1 else 'have'} "
        "another shape than the clips, "
        f"{options.size[0]}x{options.size[1]}{portrait} ({', '.join(parts)}; height x width): "
        f"{_DONE[options.fit]}"
    )
