"""The annotated video: the same pictures at the same times, with the label of the moment below."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from har.training.inference import annotate, frames
from har.training.inference.windows import Segment

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
    out = annotate.write_annotated(
        tmp_path / "b.mp4", frames.read_frames(source), segments, CLASSES
    )
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


def test_odd_sizes_lose_one_row_and_column(tmp_path: Path):
    picture = av.VideoFrame.from_ndarray(np.zeros((51, 67, 3), np.uint8))
    frames = [frames.Frame(n / 25, 25.0, picture) for n in range(3)]
    out = annotate.write_annotated(tmp_path / "b.mp4", frames, [_segment(0, 9, 0)], CLASSES)
    assert _read(out)[1][0].shape == (50, 66, 3)


def test_a_long_name_is_made_to_fit_and_the_bar_is_the_probability():
    strip = np.asarray(annotate.draw_label("A" * 80, 0.25, 320, 30))
    bar = (strip[-1, :, :3] == (90, 170, 255)).all(axis=1)
    assert bar.sum() == 80
    assert bar[:80].all()
    assert strip.shape == (30, 320, 4)
    white = (strip[:-4, :, :3] > 200).all(axis=2).any(axis=0)
    assert not white[-2:].any()  # nothing runs over the edge


def test_a_fault_midway_leaves_no_file(tmp_path: Path):
    def frames():
        yield from list(frames.read_frames(_video(tmp_path / "a.mkv", [0, 4, 8])))
        raise ValueError("the video is cut")

    with pytest.raises(ValueError, match="is cut"):
        annotate.write_annotated(tmp_path / "b.mp4", frames(), [_segment(0, 9, 0)], CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
