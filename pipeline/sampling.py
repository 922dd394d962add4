"""Which frames make a clip: numbers in, numbers out, no video needed.

`n` is always the number of frames that decode, never what a header says (YoYo_g11_c04 of UCF101
declares one frame more than it has).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

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

    frames: T, 1..1024. stride: distance of two frames of `dense`, 1..1024, 2 where neither it nor
    `fps` is given. fps: instead, how many frames `dense` takes of a second, up to 1000. clips: how
    many clips of a video `dense` gives, 1..1000; the other rules give one. stream: index of the
    video stream, None = the one that a player shows. Raises SamplingError otherwise.
    """

    rule: str = "paper"
    frames: int = 16
    stride: int | None = None
    clips: int = 1
    fps: float | None = None
    stream: int | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise SamplingError(
                f"unknown sampling {self.rule!r}: choose one of {', '.join(RULES)}."
            )
        if self.fps is None:
            object.__setattr__(self, "stride", 2 if self.stride is None else self.stride)
        elif self.stride is not None:
            raise SamplingError("--fps and --stride exclude each other: give one of them.")
        elif self.rule != "dense" or not 0 < self.fps <= 1000:
            raise SamplingError(
                f"--fps {self.fps:g} needs '--sampling dense', and is more than 0 and up to 1000."
            )
        for name, maximum in (("frames", 1024), ("stride", 1024), ("clips", 1000)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= maximum:
                raise SamplingError(f"--{name} {value} is not in 1..{maximum}.")
        if self.clips > 1 and self.rule != "dense":
            raise SamplingError(
                f"--clips {self.clips} needs '--sampling dense': {self.rule!r} takes one clip of "
                "the whole video."
            )

    def clip_indices(self, n: int, seconds: Sequence[float] | None = None) -> list[ClipIndices]:
        """The clips of a video of `n` >= 1 frames: `clips` of them for dense, else one.

        seconds: when each frame is shown, rising; needed where `fps` is given.
        """
        if n < 1:
            raise SamplingError("a video of no frames gives no clip.")
        if self.fps is None:
            clips = _RULES[self.rule](n, self)
        else:
            assert seconds is not None  # who decodes knows them
            clips = _dense_by_time(np.asarray(seconds), self.frames, self.fps, self.clips)
        return [
            ClipIndices(tuple(indices), sum(a == b == n - 1 for a, b in pairwise(indices)))
            for indices in clips
        ]

    def describe(self) -> dict[str, str | int | float]:
        """What a manifest keeps: only the parameters that the rule uses."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        unused = () if self.rule == "dense" else ("stride", "clips")
        return {name: value for name, value in fields.items() if name not in unused}


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
    assert sampler.stride is not None
    last_start = max(0, n - ((sampler.frames - 1) * sampler.stride + 1))
    if sampler.clips == 1:
        starts = [last_start // 2]
    else:
        starts = [i * last_start // (sampler.clips - 1) for i in range(sampler.clips)]
    return [
        [min(start + i * sampler.stride, n - 1) for i in range(sampler.frames)] for start in starts
    ]


def _dense_by_time(seconds: np.ndarray, T: int, fps: float, clips: int) -> list[list[int]]:
    """`_dense` in seconds: T moments 1/fps apart, and for each the frame that is nearest to it.

    Of two frames as near as each other it is the earlier one.
    """
    length = (T - 1) / fps
    last_start = max(0.0, float(seconds[-1] - seconds[0]) - length)
    shares = [0.5] if clips == 1 else [i / (clips - 1) for i in range(clips)]
    borders = (seconds[1:] + seconds[:-1]) / 2
    moments = seconds[0] + last_start * np.array(shares)[:, None] + np.arange(T) / fps  # [clips,T]
    return np.searchsorted(borders, moments - 1e-6).tolist()


_RULES: dict[str, Callable[[int, ClipSampler], list[list[int]]]] = {
    "paper": _paper,
    "uniform": _uniform,
    "dense": _dense,
}
RULES = tuple(_RULES)
