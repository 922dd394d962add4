"""What is odd about the videos of a set is in its JSON, counted in the summary, and by option."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_builds import OPTIONS, build
from made_videos import encode, ffmpeg, needs_ffmpeg, shown, tree

from har.pipeline.build import BuildOptions, load_rejects, load_warnings
from har.pipeline.cli import shards_main
from har.pipeline.decode import decode_clip, describe_warnings, summarize_warnings
from har.pipeline.inspect import describe_build, describe_set
from har.pipeline.sampling import ClipSampler
from har.shards.format import ClipReader, Manifest

X264 = ["-c:v", "libx264", "-g", "10", "-movflags", "+faststart"]


def key_json(manifest: Manifest) -> dict[str, dict]:
    """KEY.json of every clip of a set."""
    with closing(ClipReader(manifest)) as reader:
        return {key: reader.read_metadata(number) for number, key in enumerate(manifest.keys())}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three files in order, two with two video streams, a .ts, a .mp4 that is cut off."""
    root = tmp_path / "videos"
    (root / "a").mkdir(parents=True)
    encode(root / "a" / "plain1.mp4", X264, frames=40)
    encode(root / "a" / "plain2.mkv", X264, frames=40)
    encode(root / "a" / "plain3.avi", ["-c:v", "mpeg4"], frames=40)
    encode(root / "a" / "open.ts", ["-c:v", "mpeg2video"], frames=40)
    cut = encode(root / "a" / "cut.mp4", X264, frames=40)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    sources = ["-f", "lavfi", "-i", "testsrc2=size=96x80:rate=25"]
    sources += ["-f", "lavfi", "-i", "color=red:size=192x160:rate=25"]
    for name in ("two1.mkv", "two2.mkv"):
        ffmpeg(*sources, "-map", "0", "-map", "1", "-t", "1", "-c:v", "ffv1", root / "a" / name)
    return root


@needs_ffmpeg
def test_what_is_odd_is_counted_in_the_summary_and_named_for_each_video(
    videos: Path, tmp_path: Path
) -> None:
    options = BuildOptions(OPTIONS.sampling, OPTIONS.size, keep_partial=True)
    out = tmp_path / "out"
    manifest = build(videos, out, options)
    num_shown = len(shown(videos / "a" / "cut.mp4"))
    rows = {Path(row["path"]).name: row["warnings"] for row in load_warnings(out)}
    lost = rows["cut.mp4"].pop("lost")
    assert rows == {
        "cut.mp4": {},
        "open.ts": {"no_length": True},
        "two1.mkv": {"streams": {"in_file": [0, 1], "taken": 0}},
        "two2.mkv": {"streams": {"in_file": [0, 1], "taken": 0}},
    }
    assert lost["frames"] == 40 - num_shown
    clips = {Path(clip["source"]).name: clip for clip in key_json(manifest).values()}
    assert clips["cut.mp4"]["lost"] == lost
    assert (clips["cut.mp4"]["frames_decoded"], clips["cut.mp4"]["frames_declared"]) == (
        num_shown, 40,
    )  # fmt: skip
    assert clips["two1.mkv"]["stream"] == 0
    assert clips["open.ts"]["frames_declared"] == 0
    new = {"lost", "stream"}
    assert {name for name, clip in clips.items() if new & clip.keys()} == {
        "cut.mp4", "two1.mkv", "two2.mkv",
    }  # fmt: skip
    for text in (describe_build(manifest, out), describe_set(out)):
        assert "2 videos: several video streams, taken: stream 0 of 2; --stream chooses" in text
        assert f"1 video: kept in part (--keep-partial), lost: {lost['packets']} packet" in text
        assert "1 video: a kind of file that does not say how long it is" in text
        assert f"each of them: {out}/warnings.jsonl" in text
    assert build(videos, out, options) == manifest
    assert len(load_warnings(out)) == 4


@needs_ffmpeg
def test_the_stream_of_a_build_is_recorded_only_where_it_is_given(
    videos: Path, tmp_path: Path
) -> None:
    for name in ("open.ts", "cut.mp4"):
        (videos / "a" / name).unlink()
    plain = build(videos, tmp_path / "plain")
    assert plain.sampling == {"rule": "paper", "frames": 4}
    sampler = ClipSampler(frames=4, stream=1)
    chosen = build(videos, tmp_path / "chosen", BuildOptions(sampler, OPTIONS.size))
    assert chosen.sampling == {"rule": "paper", "frames": 4, "stream": 1}
    assert chosen.plan != plain.plan
    assert {clip["stream"] for clip in key_json(chosen).values()} == {1}
    reasons = {Path(row["path"]).name: row["reason"] for row in load_rejects(tmp_path / "chosen")}
    assert set(reasons) == {"plain1.mp4", "plain2.mkv", "plain3.avi"}
    assert all("has no video stream 1: give one of 0 as --stream" in it for it in reasons.values())
    first = BuildOptions(ClipSampler(frames=4, stream=0), OPTIONS.size)
    same = build(videos, tmp_path / "first", first)
    assert (same.index["xxh3"] == plain.index["xxh3"]).all()


def test_clips_by_time_are_those_of_the_decoder_and_sets_without_have_no_field(
    tmp_path: Path,
) -> None:
    videos = tree(tmp_path / "videos", groups=1, frames=40)
    assert build(videos, tmp_path / "plain").sampling == {"rule": "paper", "frames": 4}
    command = ["build", str(videos), "--out", str(tmp_path / "out"), "--frames", "4"]
    command += ["--size", "24x32", "--sampling", "dense", "--clips", "2", "--workers", "1"]
    told = CliRunner().invoke(shards_main, [*command, "--fps", "12.5"])
    assert told.exit_code == 0, told.output
    assert "sampling     clips 2, fps 12.5, frames 4, rule dense" in describe_set(tmp_path / "out")
    assert not (tmp_path / "out" / "warnings.jsonl").exists()
    sampler = ClipSampler("dense", 4, fps=12.5, clips=2)
    manifest = build(videos, tmp_path / "out", BuildOptions(sampler, (24, 32)))  # the same plan
    numbers = {clip["view"]: clip["frame_numbers"] for clip in key_json(manifest).values()}
    assert numbers == {0: [0, 2, 4, 6], 1: [33, 35, 37, 39]}
    path = next(videos.rglob("*.avi"))
    middle = decode_clip(path, frames=4, size=(24, 32), rule="dense", fps=12.5)
    assert middle.frame_indices == (16, 18, 20, 22)


def test_what_is_odd_in_words() -> None:
    lost = {"packets": 1, "frames": 2, "seconds": 1.25, "bytes": 13036}
    warnings = {"guessed_times": 1, "repaired": 2, "lost": lost, "no_length": True}
    assert describe_warnings(warnings) == [
        "1 frame without a usable time stamp: the frame rate of the file gives it.",
        "2 frames damaged: FFmpeg repaired what it could.",
        "it lost 1 packet, 2 frames, 1.25 s, 13,036 bytes.",
        "it does not say how long it is: whether it was cut off cannot be told.",
    ]
    assert summarize_warnings([{"warnings": warnings}, {"warnings": {"lost": lost}}]) == [
        "1 video: 1 frame without a usable time stamp: the frame rate gives it",
        "2 videos: kept in part (--keep-partial), lost: 2 packets, 4 frames, 2.5 s, 26,072 bytes",
        "1 video: a kind of file that does not say how long it is: a cut is not noticed",
        "1 video: 2 frames damaged, FFmpeg repaired what it could",
    ]
