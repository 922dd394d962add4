"""The sound of an annotated video: a beep stays at its flash, as packets or encoded anew."""

from pathlib import Path

import av
import made_videos
import numpy as np
import pytest

from har.training.inference import annotate
from har.training.inference.frames import read_frames
from har.training.inference.windows import PredictionError, Segment

pytestmark = made_videos.needs_ffmpeg
SEGMENTS = [Segment(0, 9, np.array([0.75, 0.25], np.float32))]
AT = 1.0  # seconds from the first frame to flash and beep
FLASH = f"color=black:s=96x80:r=25,drawbox=t=fill:c=white:enable='between(t,{AT},{AT + 0.2})'"
BEEP = f"aevalsrc='if(between(t,{AT},{AT + 0.2}),sin(5530*t),0)':s=44100"


def _source(path: Path, *options: object, sound: str = BEEP, later: float = 0.0) -> Path:
    """Two seconds with a flash and a beep; later: seconds by which the sound begins after it."""
    inputs = ["-f", "lavfi", "-i", FLASH, "-itsoffset", later, "-f", "lavfi", "-i", sound]
    made_videos.ffmpeg(*inputs, "-t", 2, *options, path)
    return path


def _annotate(source: Path, out: Path) -> list[str]:
    return annotate.write_annotated(out, read_frames(source), SEGMENTS, ["A", "B"], sound=source)


def _moments(path: Path) -> tuple[float, float]:
    """When the flash and the beep begin, in seconds since the first frame."""
    with av.open(str(path)) as container:
        pictures = [(f.time, f.to_ndarray(format="gray")) for f in container.decode(video=0)]
    shown = [(time, gray[:40].mean()) for time, gray in pictures]
    with av.open(str(path)) as container:
        heard = []
        for frame in container.decode(audio=0):
            samples = np.atleast_2d(frame.to_ndarray()).astype(float)
            samples = samples / (2**15 if frame.format.name.startswith("s16") else 1)
            loud = np.flatnonzero(np.abs(samples).max(0) > 0.2)
            channels = 1 if frame.format.is_planar else len(frame.layout.channels)
            heard += [frame.time + loud[0] / channels / frame.sample_rate] if len(loud) else []
    start = shown[0][0]
    return next(t for t, gray in shown if gray > 128) - start, heard[0] - start


def _packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


H264 = ["-c:v", "libx264", "-g", "10"]


@pytest.mark.parametrize(
    ("name", "options", "out", "codec", "note"),
    [
        ("a.mp4", [*H264, "-c:a", "aac"], "mp4", "aac", None),
        ("a.mp4", [*H264, "-c:a", "aac"], "mkv", "aac", None),
        ("a.mp4", [*H264, "-c:a", "aac"], "avi", "aac", None),
        ("a.avi", ["-c:v", "mpeg4", "-c:a", "libmp3lame"], "mp4", "mp3", None),
        ("a.avi", ["-c:v", "mpeg4", "-bf", "2", "-c:a", "pcm_s16le"], "mov", "pcm_s16le", None),
        ("a.mkv", [*H264, "-c:a", "libopus", "-ar", "48000"], "mp4", "opus", None),
        ("a.mkv", [*H264, "-c:a", "libopus", "-ar", "48000"], "avi", "mp3", "opus as mp3, for avi"),
        ("a.wmv", ["-c:v", "wmv2", "-c:a", "wmav2"], "mp4", "aac", "wmav2 as aac, for mp4"),
        ("a.ts", [*H264, "-c:a", "aac", "-output_ts_offset", "5000"], "mp4", "aac", None),
        ("a.flv", ["-c:v", "flv", "-c:a", "nellymoser", "-ar", "22050", "-ac", "1"], "mp4", "aac",
         "nellymoser as aac"),
        ("a.mkv", [*H264, "-c:a", "flac", "-output_ts_offset", "3"], "mkv", "flac", None),
        ("a.mov", [*H264, "-c:a", "aac", "-vf", "setpts='PTS+if(gt(N,5),0.02/TB,0)',setsar=4/3",
                   "-fps_mode", "passthrough"], "mp4", "aac", None),
    ],
)  # fmt: skip
def test_a_beep_stays_at_its_flash(
    tmp_path: Path, name: str, options: list, out: str, codec: str, note: str | None
):
    source, copy = _source(tmp_path / name, *options), tmp_path / f"copy.{out}"
    notes = _annotate(source, copy)
    flash, beep = _moments(copy)
    assert flash == pytest.approx(_moments(source)[0], abs=0.002)
    assert flash == pytest.approx(AT, abs=0.05)
    # libavformat shows H.264 in AVI one frame late
    assert beep == pytest.approx(AT, abs=0.075 if out == "avi" else 0.03)
    with av.open(str(copy)) as container:
        assert container.streams.audio[0].codec.canonical_name == codec
        assert container.streams.video[0].index == 0
    assert len(notes) == (note is not None)
    assert note is None or (note in notes[0] and "encoded anew" in notes[0])
    if note is None and not name.endswith(".ts"):  # its packets have ADTS headers, mp4's none
        before, after = _packets(source), _packets(copy)
        assert after == before[len(before) - len(after) :]
        assert len(before) - len(after) <= 1


def test_sound_that_begins_late_stays_late_and_avi_is_refused(tmp_path: Path):
    source = _source(tmp_path / "a.mp4", *H264, "-c:a", "aac", later=0.5)
    assert _annotate(source, tmp_path / "b.mkv") == []
    flash, beep = _moments(tmp_path / "b.mkv")
    assert (flash, beep) == (pytest.approx(AT, abs=0.05), pytest.approx(AT + 0.5, abs=0.05))
    with pytest.raises(PredictionError, match=r"sound begins 0\.\d+ s after the picture, which A"):
        _annotate(source, tmp_path / "b.avi")
    assert not (tmp_path / "b.avi").exists()


def test_every_track_is_kept_and_a_turned_video_too(tmp_path: Path):
    two = ["-map", 0, "-map", 1, "-map", 1, "-c:a:0", "aac", "-c:a:1", "flac", "-strict", -2]
    flat = _source(tmp_path / "a.mp4", *H264, *two)
    turned, rotate = tmp_path / "turned.mp4", ["-c", "copy", "-metadata:s:v", "rotate=90"]
    made_videos.ffmpeg("-i", flat, "-map", 0, *rotate, "-strict", -2, turned)
    assert _annotate(turned, tmp_path / "b.mp4") == []
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert [s.codec.canonical_name for s in container.streams.audio] == ["aac", "flac"]
        video = container.streams.video[0]
        assert (video.width, video.height) == (80, 96)
    assert _moments(tmp_path / "b.mp4")[1] == pytest.approx(AT, abs=0.05)


def test_damaged_sound_that_is_encoded_anew_is_counted(tmp_path: Path):
    source = _source(tmp_path / "a.mkv", *H264, "-c:a", "alac")
    damaged, data = tmp_path / "b.mkv", bytearray(source.read_bytes())
    piece = _packets(source)[10]
    at = data.index(piece)
    data[at : at + len(piece)] = bytes(len(piece))
    damaged.write_bytes(data)
    anew, lost = _annotate(damaged, tmp_path / "b.avi")
    assert "alac as mp3" in anew
    assert lost == "1 packet of its sound is damaged and left out."


def test_a_video_without_sound_and_a_folder_of_images_have_none(tmp_path: Path):
    silent = tmp_path / "a.mp4"
    made_videos.ffmpeg("-f", "lavfi", "-i", FLASH, "-t", 1, *H264, silent)
    assert _annotate(silent, tmp_path / "b.mp4") == []
    made_videos.ffmpeg("-i", silent, tmp_path / "%d.png")
    assert _annotate(tmp_path, tmp_path / "c.mp4") == []
    for name in ("b.mp4", "c.mp4"):
        with av.open(str(tmp_path / name)) as container:
            assert not container.streams.audio
