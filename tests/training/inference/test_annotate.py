"""The annotated video: the same pictures at the same times, with the label of the moment below."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import made_videos
import numpy as np
import pytest

from har.training.inference import annotate, frames
from har.training.inference.windows import PredictionError, Segment

CLASSES = ["Punch", "YoYo", "A" * 80]


def _segment(start: float, end: float, label: int, share: float = 0.75) -> Segment:
    values = np.full(3, (1 - share) / 2, np.float32)
    values[label] = share
    return Segment(start, end, values)


def _video(path: Path, times: list[int], size: tuple[int, int] = (64, 96)) -> Path:
    """A clip with a grey level a frame, at `times` in hundredths of a second."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for n, time in enumerate(times):
            grey = np.full((*size, 3), 20 + 8 * n, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def _read(path: Path) -> tuple[list[float], list[np.ndarray]]:
    read = list(frames.read_frames(path))
    return [frame.seconds for frame in read], [frame.rgb() for frame in read]


def test_pictures_and_times_stay_and_the_label_changes_at_its_moment(tmp_path: Path):
    times = [0, 4, 8, 12, 30, 34, 60, 64]  # a changing frame rate
    source = _video(tmp_path / "a.mkv", times)
    segments = [_segment(0, 0.3, 0), _segment(0.3, 1, 1)]
    out = tmp_path / "b.mp4"
    assert annotate.write_annotated(out, frames.read_frames(source), segments, CLASSES) == []
    before, plain = _read(source)
    after, drawn = _read(out)
    assert after == pytest.approx(before, abs=1e-3)
    assert len(drawn) == len(plain)
    strips = []
    for old, new in zip(plain, drawn, strict=True):
        assert new.shape == old.shape
        assert np.abs(old[:40].astype(int) - new[:40]).max() <= 12  # as seen through H.264
        strips.append(new[-18:, :40].astype(float))
    changes = [np.abs(a - b).mean() for a, b in pairwise(strips)]
    assert int(np.argmax(changes)) == times.index(30) - 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi"])
def test_any_size_and_the_pixel_aspect_stay(
    tmp_path: Path, suffix: str, codec: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(av, "codecs_available", {codec})
    picture = av.VideoFrame.from_ndarray(np.full((51, 67, 3), 90, np.uint8))
    source = [frames.Frame(n / 25, 25.0, picture, Fraction(4, 3)) for n in range(9)]
    out = tmp_path / f"b.{suffix}"
    annotate.write_annotated(out, source, [_segment(0, 9, 0)], CLASSES)
    copy = list(frames.read_frames(out))
    assert [frame.seconds for frame in copy] == pytest.approx([n / 25 for n in range(9)], abs=1e-3)
    assert copy[0].rgb().shape == (51, 67, 3)
    assert copy[0].pixel_aspect == Fraction(4, 3)
    assert np.abs(copy[0].rgb()[:20].astype(int) - 90).max() <= 12


@made_videos.needs_ffmpeg
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_copy_of_uneven_frames_has_their_times(
    tmp_path: Path, suffix: str, codec: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(av, "codecs_available", {codec})
    source = made_videos.variable_rate(tmp_path / "a.mp4", ["-c:v", "libx264"])
    out = tmp_path / f"b.{suffix}"
    arguments = (out, frames.read_frames(source), [_segment(0, 9, 0)], CLASSES)
    if suffix == "avi":
        with pytest.raises(PredictionError, match=r"uneven times, which AVI cannot hold"):
            annotate.write_annotated(*arguments)
        assert not out.exists()
        return
    annotate.write_annotated(*arguments)
    assert made_videos.probe(out) == pytest.approx(made_videos.probe(source), abs=1.1e-3)


@made_videos.needs_ffmpeg
@pytest.mark.parametrize("turn", ["0", "90"])
def test_a_copy_of_an_anamorphic_phone_video_has_its_shape(tmp_path: Path, turn: str):
    wide = made_videos.encode(tmp_path / "a.mp4", ["-c:v", "libx264", "-vf", "setsar=4/3"], 5)
    source = tmp_path / "b.mp4"
    made_videos.ffmpeg("-i", wide, "-c", "copy", "-metadata:s:v", f"rotate={turn}", source)
    out = tmp_path / "c.mp4"
    annotate.write_annotated(out, frames.read_frames(source), [_segment(0, 9, 0)], CLASSES)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        size, aspect = (stream.width, stream.height), stream.sample_aspect_ratio
    assert (size, aspect) == (
        ((96, 80), Fraction(4, 3)) if turn == "0" else ((80, 96), Fraction(3, 4))
    )


def test_a_label_below_the_threshold_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names: list[str] = []
    draw = annotate.draw_label
    monkeypatch.setattr(
        annotate, "draw_label", lambda name, *rest: names.append(name) or draw(name, *rest)
    )
    source = frames.read_frames(_video(tmp_path / "a.mkv", [0, 20, 40]))
    segments = [_segment(0, 0.3, 0, 0.75), _segment(0.3, 1, 1, 0.6)]
    annotate.write_annotated(tmp_path / "b.mp4", source, segments, CLASSES, threshold=0.7)
    assert names == ["Punch", "unknown"]


def test_a_long_name_is_made_to_fit_and_the_bar_is_the_probability():
    strip = np.asarray(annotate.draw_label("A" * 80, 0.25, 320, 30))
    bar = (strip[-1, :, :3] == (90, 170, 255)).all(axis=1)
    assert bar.sum() == 80
    assert bar[:80].all()
    assert strip.shape == (30, 320, 4)
    white = (strip[:-4, :, :3] > 200).all(axis=2).any(axis=0)
    assert not white[-2:].any()  # nothing runs over the edge


def test_a_fault_midway_leaves_no_file(tmp_path: Path):
    def broken():
        yield from list(frames.read_frames(_video(tmp_path / "a.mkv", [0, 4, 8])))
        raise ValueError("the video is cut")

    with pytest.raises(ValueError, match="is cut"):
        annotate.write_annotated(tmp_path / "b.mp4", broken(), [_segment(0, 9, 0)], CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
