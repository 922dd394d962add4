"""Which frame numbers make a clip: integers in, integers out, no video needed.

Odd: `n` is the number of frames that really decode, never what a header says (YoYo_g11_c04 of
UCF101 declares one frame more than it has).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise

from ..errors import HarError

RULES = ("paper", "uniform", "dense")


class SamplingError(HarError):
    """Sampling options that make no clip; the text is one sentence."""


@dataclass(frozen=True)
class ClipIndices:
    """Frame numbers of one clip, rising, always T of them; the last `padded` repeat the last."""

    numbers: tuple[int, ...]
    padded: int


@dataclass(frozen=True)
class ClipSampler:
    """A rule and its numbers.

    frames: T, 1..1024. stride: distance of the frames of `dense`, 1..1024. clips: how many views of
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
        for name, most in (("frames", 1024), ("stride", 1024), ("clips", 1000)):
            if not 1 <= getattr(self, name) <= most:
                raise SamplingError(f"--{name} {getattr(self, name)} is not in 1..{most}.")
        if self.clips > 1 and self.rule != "dense":
            raise SamplingError(
                f"--clips {self.clips} needs '--sampling dense': {self.rule!r} takes one clip of "
                "the whole video."
            )

    def picks(self, n: int) -> list[ClipIndices]:
        """The clips of a video of `n` >= 1 frames: `clips` of them for dense, else one."""
        if n < 1:
            raise SamplingError("a video of no frames gives no clip.")
        return [
            ClipIndices(tuple(numbers), sum(a == b for a, b in pairwise(numbers)))
            for numbers in _RULES[self.rule](n, self)
        ]

    def describe(self) -> dict[str, str | int]:
        """What a manifest keeps of it: no figure that the rule does not use."""
        kept = asdict(self)
        return kept if self.rule == "dense" else {"rule": self.rule, "frames": self.frames}


def _paper(n: int, options: ClipSampler) -> list[list[int]]:
    """Paper, section 3.2: step = max(1, n // T), frames 0, step, 2*step, ...; repeat the last.

    A video of 2T-1 frames gives only its first half: `uniform` is the rule without that.
    """
    step = max(1, n // options.frames)
    return [[min(at * step, n - 1) for at in range(options.frames)]]


def _uniform(n: int, options: ClipSampler) -> list[list[int]]:
    """T frames from the first to the last, evenly, halves rounded up; too few: repeat the last."""
    T = options.frames
    if n < T:
        return [[min(at, n - 1) for at in range(T)]]
    if T == 1:
        return [[n // 2]]
    return [[(2 * at * (n - 1) + T - 1) // (2 * (T - 1)) for at in range(T)]]


def _dense(n: int, options: ClipSampler) -> list[list[int]]:
    """`clips` windows of T frames at `stride`, spread from the first frame to the last.

    One window lies in the middle. Where a window is longer than the video, the last frame repeats.
    """
    room = max(0, n - ((options.frames - 1) * options.stride + 1))
    if options.clips == 1:
        starts = [room // 2]
    else:
        starts = [at * room // (options.clips - 1) for at in range(options.clips)]
    return [
        [min(start + at * options.stride, n - 1) for at in range(options.frames)]
        for start in starts
    ]


_RULES: dict[str, Callable[[int, ClipSampler], list[list[int]]]] = {
    "paper": _paper,
    "uniform": _uniform,
    "dense": _dense,
}
