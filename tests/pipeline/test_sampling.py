"""Which frames make a clip: the paper's rule, the even one, and windows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from har.pipeline.sampling import RULES, ClipSampler, SamplingError


def _frames(rule: str, n: int, frames: int, **options: int) -> list[tuple[int, ...]]:
    return [clip.frame_indices for clip in ClipSampler(rule, frames, **options).clip_indices(n)]


def test_paper_takes_every_step_from_the_first() -> None:
    assert _frames("paper", 20, 4) == [(0, 5, 10, 15)]
    assert _frames("paper", 23, 4) == [(0, 5, 10, 15)]


def test_paper_sees_only_half_of_a_video_of_2t_minus_1_frames_and_uniform_all() -> None:
    assert _frames("paper", 15, 8) == [tuple(range(8))]
    assert _frames("uniform", 15, 8) == [(0, 2, 4, 6, 8, 10, 12, 14)]


def test_short_video_repeats_its_last_frame() -> None:
    for rule in ("paper", "uniform"):
        (clip,) = ClipSampler(rule, 5).clip_indices(3)
        assert (clip.frame_indices, clip.num_padded) == ((0, 1, 2, 2, 2), 2)
    (clip,) = ClipSampler("dense", 4, stride=2).clip_indices(4)
    assert (clip.frame_indices, clip.num_padded) == ((0, 2, 3, 3), 1)


def test_dense_windows_reach_from_the_first_frame_to_the_last() -> None:
    views = _frames("dense", 100, 4, stride=2, clips=3)
    assert views == [(0, 2, 4, 6), (46, 48, 50, 52), (93, 95, 97, 99)]
    assert _frames("dense", 100, 4, stride=2) == [(46, 48, 50, 52)]


@given(
    rule=st.sampled_from(RULES),
    n=st.integers(1, 5000),
    frames=st.integers(1, 64),
    stride=st.integers(1, 9),
    clips=st.integers(1, 10),
)
def test_any_clip_has_t_rising_frames_of_the_video(
    rule: str, n: int, frames: int, stride: int, clips: int
) -> None:
    clips = clips if rule == "dense" else 1
    clips_of_video = ClipSampler(rule, frames, stride, clips).clip_indices(n)
    assert len(clips_of_video) == clips
    for clip in clips_of_video:
        assert len(clip.frame_indices) == frames
        assert list(clip.frame_indices) == sorted(clip.frame_indices)
        assert clip.frame_indices[0] >= 0
        assert clip.frame_indices[-1] < n
        assert clip.num_padded == frames - len(set(clip.frame_indices))
        assert clip.num_padded == 0 or clip.frame_indices[-1] == n - 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rule": "random"}, "paper, uniform, dense"),
        ({"frames": 0}, "--frames 0"),
        ({"clips": 3}, "--clips 3 needs '--sampling dense'"),
        ({"fps": 12.5, "stride": 2, "rule": "dense"}, "--fps and --stride exclude each other"),
        ({"fps": 12.5}, "--fps 12.5 needs '--sampling dense'"),
        ({"fps": 0, "rule": "dense"}, "--fps 0 needs .* more than 0"),
        ({"fps": float("nan"), "rule": "dense"}, "--fps nan needs"),
    ],
)
def test_options_that_make_no_clip_are_refused(options: dict, text: str) -> None:
    with pytest.raises(SamplingError, match=text):
        ClipSampler(**options)


def test_a_video_without_frames_gives_no_clip() -> None:
    with pytest.raises(SamplingError, match="no frames"):
        ClipSampler().clip_indices(0)
