"""Walking an AVI's chunks gives what libavformat gives, or nothing."""

from __future__ import annotations

from pathlib import Path

import av
import made_videos
import numpy as np
import pytest
from exactness import decode_whole

from har.pipeline.decode import VideoDecodeError, avi, decode_clip, decode_clips
from har.pipeline.sampling import ClipSampler


def _assert_as_libavformat(path: Path) -> None:
    data = path.read_bytes()
    video = avi.read_avi(data)
    assert video is not None
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
        context, rate = stream.codec_context, stream.average_rate
        assert [data[start:end] for start, end in video.spans.tolist()] == packets
        assert (video.fps, video.num_frames) == (float(rate or 0), stream.frames)
        assert (video.width, video.height) == (context.width, context.height)


@pytest.mark.parametrize(
    "kind", ["mpeg4_b.avi", "mpeg4_odd_size.avi", "ntsc.avi", "sound.avi", "one_frame.avi"]
)
def test_packets_rate_and_size_are_those_of_libavformat(tmp_path: Path, kind: str) -> None:
    _assert_as_libavformat(made_videos.write(tmp_path / kind, kind))


@pytest.mark.real
def test_real_files_read_the_same_or_are_left_to_libavformat(real_clips: Path) -> None:
    for path in sorted((real_clips / "ucf101").rglob("*.avi")):
        _assert_as_libavformat(path)
    for path in sorted((real_clips / "odd").iterdir()):
        if avi.read_avi(path.read_bytes()) is not None:
            _assert_as_libavformat(path)


def test_anything_but_the_plain_form_is_left_to_libavformat(tmp_path: Path) -> None:
    data = made_videos.write(tmp_path / "plain.avi").read_bytes()
    index = data.index(b"idx1")
    first = data.index(b"00dc", data.index(b"movi"))
    entry = index + 8 + 12  # size of the index's first entry
    damaged = {
        "cut": data[:-1],
        "longer than it says": data + b"\0",
        "no index": data[:index] + b"JUNK" + data[index + 4 :],
        "index of another size": data[:entry] + b"\xff" + data[entry + 1 :],
        "unknown chunk": data[:first] + b"77zz" + data[first + 4 :],
        "chunk past the end": data[: first + 4] + b"\xff\xff\xff\x7f" + data[first + 8 :],
        "another codec": data.replace(b"FMP4", b"H264"),
        "no picture header": data.replace(b"strf", b"JUNK", 1),
        "not AVI": b"RIFX" + data[4:],
        "nothing": b"",
    }
    for length in range(12, data.index(b"movi"), 7):
        damaged[f"header cut at {length}"] = (
            data[:4] + (length - 8).to_bytes(4, "little") + data[8:length]
        )
    assert avi.read_avi(data) is not None
    for name, content in damaged.items():
        assert avi.read_avi(content) is None, name


def _assert_as_decoded_whole(path: Path, what: object = "") -> None:
    results = []
    for decode in (decode_clips, decode_whole):
        try:
            (clip,) = decode(path, ClipSampler(frames=4), (24, 30))
            results.append({**vars(clip), "pixels": clip.pixels.tolist()})
        except VideoDecodeError:
            results.append(None)
    assert results[0] == results[1], what


def test_damage_outside_the_pictures_changes_nothing_or_is_seen(tmp_path: Path) -> None:
    """Any byte of headers and index, of a file with sound: as a plain decode takes it."""
    sound = made_videos.write(tmp_path / "sound.avi", "sound.avi").read_bytes()
    rng, bad = np.random.default_rng(0), tmp_path / "bad.avi"
    outside = [*range(sound.index(b"movi") + 12), *range(sound.index(b"idx1"), len(sound))]
    for offset in rng.choice(outside, 120, replace=False).tolist():
        bad.write_bytes(sound[:offset] + bytes([rng.integers(256)]) + sound[offset + 1 :])
        _assert_as_decoded_whole(bad, offset)


def test_damage_in_a_picture_that_is_needed_is_seen(tmp_path: Path) -> None:
    path = made_videos.write(tmp_path / "v.avi")
    data = bytearray(path.read_bytes())
    first = data.index(b"00dc", data.index(b"movi"))
    data[first + 200 : first + 260] = bytes(60)  # in the first picture
    path.write_bytes(data)
    assert avi.read_avi(bytes(data)) is not None
    _assert_as_decoded_whole(path)


def test_a_file_cut_off_is_rejected_unless_what_is_there_is_asked_for(tmp_path: Path) -> None:
    data = made_videos.write(tmp_path / "v.avi").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) // 2])
    message = rf"cut\.avi is cut off: {len(data) // 2:,} bytes of at least {data.index(b'idx1'):,}"
    with pytest.raises(VideoDecodeError, match=message):
        decode_clip(cut)
    assert 0 < decode_clip(cut, keep_partial=True).num_decoded < 40
