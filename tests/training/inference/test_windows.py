"""Windows over a long video: which frames they hold, and the timeline that they make."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictor import make_video_run

from har.training.inference import windows
from har.training.inference.predictor import Predictor, read_frames
from har.training.inference.windows import PredictionError, Segment


def _window(start: float, end: float, *probabilities: float) -> Segment:
    return Segment(start, end, np.array(probabilities, np.float32))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_windows_cover_every_frame_and_are_whole(n: int, length: int, data: st.DataObject):
    hop = data.draw(st.integers(1, length))
    found = list(windows.sliding_windows(range(n), length, hop))
    assert {frame for one in found for frame in one} == set(range(n))
    assert all(one == list(range(one[0], one[0] + min(length, n))) for one in found)
    assert [one[0] for one in found[:-1]] == [k * hop for k in range(len(found) - 1)]
    assert found[-1][-1] == n - 1


def test_no_frame_gives_no_window():
    assert list(windows.sliding_windows([], 4, 2)) == []


def test_a_long_stream_is_held_one_window_at_a_time():
    assert {len(one) for one in windows.sliding_windows(range(10_000), 8, 4)} == {8}


def test_the_timeline_is_the_mean_of_the_windows_that_cover_a_moment():
    found = [_window(0, 2, 0.9, 0.1), _window(1, 3, 0.3, 0.7), _window(2, 4, 0.1, 0.9)]
    segments = windows.timeline(found)
    assert [(piece.start, piece.end, piece.label) for piece in segments] == [(0, 2, 0), (2, 4, 1)]
    assert segments[0].probabilities == pytest.approx([(0.9 + 0.6) / 2, (0.1 + 0.4) / 2])
    assert segments[1].probabilities == pytest.approx([(0.2 + 0.1) / 2, (0.8 + 0.9) / 2])


def test_a_gap_between_windows_is_no_piece():
    segments = windows.timeline([_window(0, 1, 1, 0), _window(5, 6, 1, 0)])
    assert [(piece.start, piece.end) for piece in segments] == [(0, 1), (5, 6)]


def test_a_moment_belongs_to_the_segment_that_begins_there_and_the_end_to_the_last():
    segments = [Segment(0, 2, np.array([1, 0])), Segment(2, 4, np.array([0, 1]))]
    for seconds, index in ((0, 0), (1.9, 0), (2, 1), (9, 1)):
        assert windows.segment_at(segments, seconds) is segments[index]


@pytest.mark.parametrize(
    ("window", "hop", "text"),
    [(0, None, "--window 0"), (float("nan"), None, "--window nan"), (2, 3, "--hop 3"), (2, 0, "0")],
)
def test_windows_that_make_no_sense_are_refused(window: float, hop: float | None, text: str):
    with pytest.raises(PredictionError, match=text):
        windows.check_window(window, hop)


@pytest.mark.parametrize("rule", ["paper", "uniform"])
def test_one_window_over_a_whole_video_is_its_prediction(
    tmp_path: Path, synthetic_videos: Path, rule: str
):
    predictor = Predictor(make_video_run(tmp_path / rule, rule=rule), "cpu")
    video = sorted(synthetic_videos.rglob("*.avi"))[0]
    (one,) = predictor.predict_windows(read_frames(video), 1000, 1000)
    assert one.probabilities == pytest.approx(predictor.predict_video(video), abs=1e-5)
    frames = list(read_frames(video))
    assert (one.start, one.end) == (0, pytest.approx(len(frames) / 25))
    again = [predictor.resize_frame(frames[i].rgb()) for i in predictor.frame_indices(len(frames))]
    assert np.array_equal(np.stack(again), predictor.decode_video(video)[0])  # to the bit


def test_windows_are_of_the_seconds_asked_for(tmp_path: Path, synthetic_videos: Path):
    predictor = Predictor(make_video_run(tmp_path / "a"), "cpu")
    video = sorted(synthetic_videos.rglob("*.avi"))[0]
    found = list(predictor.predict_windows(read_frames(video), 0.8, 0.4))
    assert [one.end - one.start for one in found] == pytest.approx([0.8] * len(found))
    assert [one.start for one in found[:-1]] == pytest.approx(
        [0.4 * k for k in range(len(found) - 1)]
    )
