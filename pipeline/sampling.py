"""Which frames make a clip: integers in, integers out, no video needed.

`n` is always the number of frames that decode, never what a header says (YoYo_g11_c04 of UCF101
declares one frame more than it has).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise

from ..errors import HarError


class SamplingError(HarError):
    """Sampling options that make no clip; the text is one sentence."""


@dataclass(frozen=True)
class ClipIndices:
    """Frame indices of one clip, rising, always T of them; the last `num_padded` repeat the last
    frame."""

    frame_indices: tuple[int, ...]
    num_padded: int


@dataclass(frozen=True)
class ClipSampler:
    """A rule and its parameters.

    frames: T, 1..1024. stride: distance of two frames of `dense`, 1..1024. clips: how many clips of
    a video `dense` gives, 1..1000; the other rules give one. Raises SamplingError otherwise.
    """

    rule: str = "paper"
    frames: int = 16
    stride: int = 2
    clips: int = 1

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise SamplingError(
                f"unknown sampling {self.rule!r}: choose one of {', '.join(RULES)}."
            )
        for name, maximum in (("frames", 1024), ("stride", 1024), ("clips", 1000)):
            if not 1 <= getattr(self, name) <= maximum:
                raise SamplingError(f"--{name} {getattr(self, name)} is not in 1..{maximum}.")
        if self.clips > 1 and self.rule != "dense":
            raise SamplingError(
                f"--clips {self.clips} needs '--sampling dense': {self.rule!r} takes one clip of "
                "the whole video."
            )

    def clip_indices(self, n: int) -> list[ClipIndices]:
        """The clips of a video of `n` >= 1 frames: `clips` of them for dense, else one."""
        if n < 1:
            raise SamplingError("a video of no frames gives no clip.")
        return [
            ClipIndices(tuple(indices), sum(a == b for a, b in pairwise(indices)))
            for indices in _RULES[self.rule](n, self)
        ]

    def describe(self) -> dict[str, str | int]:
        """What a manifest keeps: only the parameters that the rule uses."""
        fields = asdict(self)
        return fields if self.rule == "dense" else {"rule": self.rule, "frames": self.frames}


def _paper(n: int, sampler: ClipSampler) -> list[list[int]]:
    """Paper, section 3.2: step = max(1, n // T), frames 0, step, 2*step, ...; repeat the last.

    A video of 2T-1 frames gives only its first half: `uniform` is the rule without that.
    """
    step = max(1, n // sampler.frames)
    return [[min(i * step, n - 1) for i in range(sampler.frames)]]


def _uniform(n: int, sampler: ClipSampler) -> list[list[int]]:
    """T frames from the first to the last, evenly, halves rounded up; too few: repeat the last."""
    T = sampler.frames
    if n < T:
        return [[min(i, n - 1) for i in range(T)]]
    if T == 1:
        return [[n // 2]]
    return [[(2 * i * (n - 1) + T - 1) // (2 * (T - 1)) for i in range(T)]]


def _dense(n: int, sampler: ClipSampler) -> list[list[int]]:
    """`clips` windows of T frames at `stride`, spread from the first frame to the last.

    A single window lies in the middle. Where a window is longer than the video, the last frame
    repeats.
    """
    last_start = max(0, n - ((sampler.frames - 1) * sampler.stride + 1))
    if sampler.clips == 1:
        starts = [last_start // 2]
    else:
        starts = [i * last_start // (sampler.clips - 1) for i in range(sampler.clips)]
    return [
        [min(start + i * sampler.stride, n - 1) for i in range(sampler.frames)] for start in starts
    ]


_RULES: dict[str, Callable[[int, ClipSampler], list[list[int]]]] = {
    "paper": _paper,
    "uniform": _uniform,
    "dense": _dense,
}
RULES = tuple(_RULES)
