"""Windows over a long video: which frames they hold, and the timeline that they make."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictor import make_video_run
from made_videos import ffmpeg, needs_ffmpeg, variable_rate, wrong_rate

from har.pipeline.decode import decode_clips
from har.pipeline.sampling import ClipSampler
from har.training.inference import windows
from har.training.inference.export import build_contract
from har.training.inference.frames import read_frames
from har.training.inference.predictor import Predictor
from har.training.inference.uploaded_video import UploadError, check_video, decode_upload
from har.training.inference.windows import PredictionError, Segment


def _window(start: float, end: float, *probabilities: float) -> Segment:
    return Segment(start, end, np.array(probabilities, np.float32))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 20), st.data())
def test_windows_cover_every_frame_and_are_of_their_seconds(
    steps: list[int], window: int, data: st.DataObject
):
    """Steps between frames and windows in tenths of a second."""
    hop = data.draw(st.integers(1, window)) / 10
    times = [sum(steps[:n]) / 10 for n in range(len(steps) + 1)]
    end = times[-1] + (steps[-1] / 10 if steps else 0.04)
    found = list(windows.sliding_windows([(time, time) for time in times], window / 10, hop))
    assert {time for _, _, held in found for _, time in held} == set(times)
    for number, (start, stop, held) in enumerate(found):
        inside = [time for time in times if start - 1e-6 <= time < stop - 1e-6]
        before = [time for time in times if time < start]
        assert [time for _, time in held] == (inside or before[-1:])
        is_moved = number == len(found) - 1 and stop == pytest.approx(end)
        assert start == pytest.approx(max(0, end - window / 10) if is_moved else number * hop)
        assert stop - start == pytest.approx(min(window / 10, end))
    assert found[-1][1] <= end + 1e-6


def test_no_frame_gives_no_window():
    assert list(windows.sliding_windows([], 4, 2)) == []


def test_a_long_stream_is_held_one_window_at_a_time():
    frames = ((n / 25, n) for n in range(10_000))
    assert {len(held) for _, _, held in windows.sliding_windows(frames, 0.32, 0.16)} == {8}


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
    [
        (0, None, "--window 0"), (1e-9, None, "--window 1e-09"), (float("nan"), None, "nan"),
        (2, 3, "--hop 3"), (2, 0, "0"), (2, 1e-9, "--hop 1e-09"),
    ],
)  # fmt: skip
def test_windows_that_make_no_sense_are_refused(window: float, hop: float | None, text: str):
    with pytest.raises(PredictionError, match=text):
        windows.check_window(window, hop)


@pytest.mark.parametrize(
    ("rule", "fit"), [("paper", None), ("uniform", None), ("paper", "crop"), ("paper", "pad")]
)
def test_one_window_over_a_whole_video_is_its_prediction(
    tmp_path: Path, synthetic_videos: Path, rule: str, fit: str | None
):
    predictor = Predictor(make_video_run(tmp_path / rule, rule=rule, fit=fit), "cpu")
    video = sorted(synthetic_videos.rglob("*.avi"))[0]
    (one,) = predictor.predict_windows(read_frames(video), 1000, 1000)
    assert one.probabilities == pytest.approx(predictor.predict_video(video), abs=1e-5)
    frames = list(read_frames(video))
    assert (one.start, one.end) == (0, pytest.approx(len(frames) / 25))
    times = [frame.seconds for frame in frames]
    again = [predictor.resize_frame(frames[i].rgb()) for i in predictor.frame_indices(times)]
    assert np.array_equal(np.stack(again), predictor.decode_video(video)[0])  # to the bit


def test_windows_are_of_the_seconds_asked_for(tmp_path: Path, synthetic_videos: Path):
    predictor = Predictor(make_video_run(tmp_path / "a"), "cpu")
    video = sorted(synthetic_videos.rglob("*.avi"))[0]
    found = list(predictor.predict_windows(read_frames(video), 0.8, 0.4))
    assert [one.end - one.start for one in found] == pytest.approx([0.8] * len(found))
    assert [one.start for one in found[:-1]] == pytest.approx(
        [0.4 * k for k in range(len(found) - 1)]
    )


@needs_ffmpeg
@pytest.mark.parametrize("name", ["phone.mp4", "header.webm"])
def test_windows_of_uneven_frames_and_lying_headers_are_of_seconds(tmp_path: Path, name: str):
    predictor = Predictor(make_video_run(tmp_path / "a"), "cpu")
    if name == "phone.mp4":  # 30 frames to 1.2 s, 30 to 4.8 s, 40 to 5.48 s
        video = variable_rate(tmp_path / name, ["-c:v", "libx264"])
        starts, end, counts = [0, 1, 2, 3, 3.48], 5.48, [37, 20, 17, 27, 51]
    else:
        video, starts, end, counts = wrong_rate(tmp_path / name), [0, 0.4], 2.4, [50, 50]
    sizes: list[int] = []
    choose = predictor.frame_indices
    predictor.frame_indices = lambda times: sizes.append(len(times)) or choose(times)
    found = list(predictor.predict_windows(read_frames(video), 2, 1))
    assert [one.start for one in found] == pytest.approx(starts, abs=0.002)
    assert [one.end - one.start for one in found] == pytest.approx([2] * len(found))
    assert found[-1].end == pytest.approx(end, abs=0.002)
    assert sizes == pytest.approx(counts, abs=1)


@needs_ffmpeg
def test_a_run_of_clips_by_time_predicts_by_time(tmp_path: Path):
    run = make_video_run(tmp_path / "a", rule="dense", fps=5.0, clips=2)
    predictor = Predictor(run, "cpu")
    video = variable_rate(tmp_path / "phone.mp4", ["-c:v", "libx264", "-bf", "2"])
    sampler = ClipSampler("dense", 6, fps=5.0, clips=2)
    clips = decode_clips(video, sampler, (36, 48))
    np.testing.assert_array_equal(predictor.decode_video(video), [clip.pixels for clip in clips])
    assert build_contract(predictor, True, "")["sampling"] == {
        "rule": "dense", "fps": 5.0, "clips": 2,
    }  # fmt: skip
    out = np.empty(2 * 6 * 36 * 48 * 3, np.uint8)  # as the page decodes
    decoded = decode_upload(str(video), out, 10, asdict(predictor.sampler), (36, 48))
    assert decoded == {"num_clips": 2, "warnings": []}
    np.testing.assert_array_equal(out.reshape(2, 6, 36, 48, 3), [clip.pixels for clip in clips])
    frames = list(read_frames(video))
    times = [frame.seconds for frame in frames if 3 <= frame.seconds < 5]
    moments = (times[-1] - times[0] - 1) / 2 + times[0] + np.arange(6) / 5
    nearest = np.abs(np.array(times) - moments[:, None]).argmin(1)
    assert predictor.frame_indices(times) == nearest.tolist()


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "seconds"), [("phone.mp4", 5.48), ("header.webm", 2.4), ("slow.mp4", 1.5)]
)
def test_limits_of_length_are_seconds(tmp_path: Path, name: str, seconds: float):
    path = tmp_path / name
    if name == "phone.mp4":
        variable_rate(path, ["-c:v", "libx264"])
    elif name == "header.webm":
        wrong_rate(path)
    else:  # 360 frames
        ffmpeg("-f", "lavfi", "-i", "testsrc2=size=96x80:rate=240:d=1.5", path)
    check_video(path, int(seconds + 1))
    with pytest.raises(UploadError, match=f"it is longer than {int(seconds)} s"):
        check_video(path, int(seconds))
