"""Builds: whole or not there, the same bytes whatever happens, and no video vanishes."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import made_videos
import numpy as np
import pytest

from har.pipeline import dataset
from har.pipeline.build import storage
from har.pipeline.build.build import build_shard_set, load_rejects
from har.pipeline.build.executor import BuildError, RunOptions
from har.pipeline.build.plan import BuildOptions
from har.pipeline.decode import clips as decode
from har.pipeline.sampling import ClipSampler
from har.shards.format import shard_set, verify, writer
from har.shards.format.reader import ClipReader

SIZE = (24, 32)
OPTIONS = BuildOptions(ClipSampler(frames=4), SIZE)
QUIET = RunOptions(workers=1, quiet=True)  # a decoder costs a second of imports


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes x 4 groups x 2 clips, 64x48, no two alike."""
    return made_videos.tree(tmp_path_factory.mktemp("build") / "videos")


@pytest.fixture(scope="module")
def undisturbed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    build_shard_set(videos, out, options=OPTIONS, run_options=QUIET)
    return out


def _bytes(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_set_holds_what_the_decoder_gives(videos: Path, undisturbed: Path) -> None:
    clips = shard_set.load(undisturbed)
    assert (clips.clip_shape, clips.classes) == ((4, *SIZE, 3), ("Punch", "YoYo"))
    assert (len(clips.index), clips.rejects, clips.grouping) == (16, 0, "ucf101")
    assert clips.sampling == {"rule": "paper", "frames": 4}
    assert clips.groups[0] == "Punch/g01"
    reader = ClipReader(clips)
    for sample, key in enumerate(clips.keys()):
        row, name = clips.index[sample], key.split("_")[1]
        alone = decode.decode_clip(videos / name / f"{key}.avi", frames=4, size=SIZE)
        np.testing.assert_array_equal(reader.read(sample), alone.pixels)
        assert clips.classes[row["label"]] == name
        assert clips.groups[row["group"]] == f"{name}/{key.split('_')[2]}"
        assert (row["decoded"], row["padded"]) == (12, 0)
    reader.close()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # it leaves files open
def test_a_shard_is_a_plain_tar_that_stock_webdataset_reads(undisturbed: Path) -> None:
    import webdataset as wds

    clips = shard_set.load(undisturbed)
    path = clips.shard_path(0)
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {
        (0, 0, 0, "")
    }
    for sample in wds.WebDataset(str(path), shardshuffle=False):
        pixels = np.load(io.BytesIO(sample["npy"]))
        assert (pixels.shape, pixels.dtype) == (clips.clip_shape, np.uint8)
        about = json.loads(sample["json"])
        name = about["class"]
        assert clips.classes[int(sample["cls"])] == name
        assert about["source"] == f"{name}/{sample['__key__']}.avi"
        assert about["frame_numbers"] == [0, 3, 6, 9]
        assert (about["fps"], about["frames_decoded"], about["padded"]) == (25.0, 12, 0)


def test_two_builds_give_the_same_bytes(videos: Path, undisturbed: Path, tmp_path: Path) -> None:
    build_shard_set(videos, tmp_path / "b", options=OPTIONS, run_options=RunOptions(2, quiet=True))
    assert _bytes(tmp_path / "b") == _bytes(undisturbed)


def test_any_executor_gives_the_same_bytes(videos: Path, undisturbed: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        build_shard_set(
            videos, tmp_path / "p", options=OPTIONS, run_options=QUIET, executor=executor
        )
    assert _bytes(tmp_path / "p") == _bytes(undisturbed)


def test_build_of_a_whole_set_changes_nothing(videos: Path, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    build_shard_set(videos, undisturbed, options=OPTIONS, run_options=QUIET)
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()}


def test_other_options_or_videos_refuse_to_mix(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"sampling frames: 4 there, 8 now"):
        build_shard_set(videos, undisturbed, options=BuildOptions(ClipSampler(frames=8), SIZE))
    (tmp_path / "half" / ".build").mkdir(parents=True)
    plan = {"hash": "other", "facts": {"videos": 3}}
    (tmp_path / "half" / ".build" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(BuildError, match="videos: 3 there, 16 now"):
        build_shard_set(videos, tmp_path / "half", options=OPTIONS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(BuildError, match=r"not empty \(thesis\.txt\)"):
        build_shard_set(videos, tmp_path / "mine", options=OPTIONS)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def _command(videos: Path, out: Path) -> list[str]:
    program = "from har.pipeline.cli import shards_main; shards_main()"
    return [
        sys.executable, "-c", program, "build", str(videos), "--out", str(out),
        "--frames", "4", "--size", "24x32", "--workers", "2",
    ]  # fmt: skip


def _kill_after(videos: Path, out: Path, seconds: float) -> None:
    child = subprocess.Popen(
        _command(videos, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    child.kill()
    child.wait()


def _assert_resumes(videos: Path, out: Path, undisturbed: Path) -> None:
    if not (out / shard_set.MANIFEST).exists():
        with pytest.raises(shard_set.ShardSetError):
            shard_set.load(out)
    build_shard_set(videos, out, options=OPTIONS, run_options=QUIET)
    assert _bytes(out) == _bytes(undisturbed)


def test_killed_build_goes_on_and_ends_with_the_same_bytes(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    for seconds in (2.0,):
        _kill_after(videos, out, seconds)
    _assert_resumes(videos, out, undisturbed)


@pytest.mark.slow
def test_build_killed_at_twenty_random_moments(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    start = time.monotonic()
    subprocess.run(_command(videos, tmp_path / "timed"), check=True, capture_output=True)
    whole = time.monotonic() - start
    rng = np.random.default_rng(20)
    for number, share in enumerate(rng.uniform(0.05, 1.0, 20)):
        _kill_after(videos, tmp_path / f"set{number}", share * whole)
        _assert_resumes(videos, tmp_path / f"set{number}", undisturbed)


def test_finished_shards_are_kept(videos: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "set"
    add, calls = writer.ShardWriter.add, []

    def fail_later(self: writer.ShardWriter, *given: object) -> tuple[int, int]:
        calls.append(given)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return add(self, *given)

    monkeypatch.setattr(writer.ShardWriter, "add", fail_later)
    with pytest.raises(BuildError, match="is full: make room and run the same command again"):
        build_shard_set(videos, out, options=OPTIONS, run_options=RunOptions(1, quiet=True))
    assert len(list(out.glob("*.tar"))) == 2
    assert not list(out.glob(".*.tmp"))
    monkeypatch.undo()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    build_shard_set(videos, out, options=OPTIONS, run_options=QUIET)
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_too_little_room_is_said_before_the_start(
    videos: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: _Room())
    with pytest.raises(BuildError, match=r"has 0\.00 GB free: give an --out with more room"):
        build_shard_set(videos, tmp_path / "set", options=OPTIONS)


class _Room:
    free = 1000


def test_output_that_cannot_be_written(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="give another --out"):
        build_shard_set(videos, tmp_path / "file" / "set", options=OPTIONS)


def _hook(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Every decoder runs `line` before each video, which is in `path`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, har.pipeline.decode.clips as d\n"
        "plain = d.decode_clips\n"
        "def clips(path, *a, **k):\n"
        f"    {line}\n"
        "    return plain(path, *a, **k)\n"
        "d.decode_clips = clips\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")


@pytest.fixture
def troubled(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CSV: three good videos, one that hangs the decoder, one broken, one missing, one a pipe."""
    rows = ["path,label,group"]
    for number, path in enumerate(sorted(videos.rglob("*.avi"))[:3]):
        rows.append(f"{path},good,{number}")
    _hook(tmp_path / "hook", monkeypatch, "if 'hangs' in path: __import__('time').sleep(3600)")
    (tmp_path / "hangs.avi").write_bytes(b"")
    (tmp_path / "broken.avi").write_bytes(b"not a video")
    os.mkfifo(tmp_path / "pipe.avi")
    rows += ["hangs.avi,bad,7", "broken.avi,bad,8", "missing.avi,bad,9", "pipe.avi,bad,10"]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_bad_videos_are_rejected_by_name_and_the_rest_is_built(
    troubled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    run_options = RunOptions(workers=1, timeout=1.5, quiet=True)
    clips = build_shard_set(troubled, out, options=OPTIONS, run_options=run_options)
    assert (len(clips.index), clips.rejects) == (3, 4)
    reasons = {one["path"]: one["reason"] for one in load_rejects(out)}
    assert reasons["hangs.avi"] == "no answer within 1.5 s"
    assert (
        reasons["broken.avi"] == "it cannot be decoded (Invalid data found when processing input)"
    )
    assert reasons["missing.avi"] == "it cannot be decoded (No such file or directory)"
    assert reasons["pipe.avi"] == "it is not a regular file"
    assert verify.full(clips) == []


def test_a_decoder_that_crashes_costs_its_video_only(
    videos: Path, tmp_path: Path, monkeypatch
) -> None:
    _hook(tmp_path / "hook", monkeypatch, "if 'Punch_g02_c01' in path: os.kill(os.getpid(), 11)")
    out = tmp_path / "set"
    clips = build_shard_set(videos, out, options=OPTIONS, run_options=QUIET)
    assert len(clips.index) == 15
    assert [(one["key"], one["reason"]) for one in load_rejects(out)] == [
        ("v_Punch_g02_c01", "the decoder died of it (signal 11)"),
    ]


def test_too_many_rejects_fail_the_build_and_allowing_them_mends_it(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    made_videos.write(root / "A" / "good.avi", frames=6)
    for number in range(2):
        (root / "A" / f"bad{number}.avi").write_bytes(b"x")
    out = tmp_path / "set"
    with pytest.raises(BuildError, match=r"2 of 3 videos give no clip .*--max-rejects 1 allows"):
        build_shard_set(
            root, out, options=OPTIONS, run_options=RunOptions(1, max_rejects=1, quiet=True)
        )
    assert len(load_rejects(out)) == 2
    assert not (out / shard_set.MANIFEST).exists()
    clips = build_shard_set(root, out, options=OPTIONS, run_options=QUIET)
    assert len(clips.index) == 1
    (root / "A" / "good.avi").unlink()
    with pytest.raises(BuildError, match="none of the 2 videos gives a clip"):
        build_shard_set(root, tmp_path / "other", options=OPTIONS, run_options=QUIET)


def test_dense_views_of_a_video_have_keys_of_their_own(videos: Path, tmp_path: Path) -> None:
    options = BuildOptions(ClipSampler("dense", 4, stride=2, clips=3), SIZE)
    clips = build_shard_set(videos, tmp_path / "set", options=options, run_options=QUIET)
    assert len(clips.index) == 48
    assert clips.keys(slice(0, 3)) == [
        "v_Punch_g01_c01", "v_Punch_g01_c01@1", "v_Punch_g01_c01@2",
    ]  # fmt: skip
    assert clips.index["view"][:4].tolist() == [0, 1, 2, 0]
    assert clips.index["video"][:4].tolist() == [0, 0, 0, 1]
    assert clips.sampling == {"rule": "dense", "frames": 4, "stride": 2, "clips": 3}
    assert verify.full(clips) == []


def test_sides_of_a_csv_are_in_the_index(videos: Path, tmp_path: Path) -> None:
    paths = sorted(videos.rglob("*.avi"))[:3]
    rows = [f"{p},{p.parent.name},{s}" for p, s in zip(paths, ("test", "train", ""), strict=True)]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows))
    clips = build_shard_set(
        tmp_path / "list.csv",
        tmp_path / "set",
        options=OPTIONS,
        run_options=QUIET,
        group_regex=r"(g\d+)",
    )
    sides = dict(zip(clips.keys(), clips.index["side"].tolist(), strict=True))
    assert [sides[path.stem] for path in paths] == [3, 1, 0]
    assert clips.grouping == "regex"


def _as_at_a_terminal() -> None:
    """A script's background jobs inherit "ignore Ctrl-C", and this suite may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_stops_within_two_seconds_and_leaves_no_process(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    child = subprocess.Popen(
        _command(videos, out), stderr=subprocess.PIPE, text=True, preexec_fn=_as_at_a_terminal
    )
    deadline = time.monotonic() + 20
    while not list(out.glob(".*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, said = child.communicate(timeout=10)
    assert time.monotonic() - start < 2
    assert child.returncode == 130
    assert "run the same command again" in said
    assert "Traceback" not in said
    _assert_resumes(videos, out, undisturbed)


@pytest.mark.real
def test_real_clips_build_verify_and_read(real_clips: Path, tmp_path: Path) -> None:
    clips = build_shard_set(real_clips / "ucf101", tmp_path / "set", run_options=QUIET)
    assert (len(clips.index), clips.rejects) == (83, 0)
    assert clips.clip_shape == (16, 128, 171, 3)
    assert verify.full(clips) == []
    assert len(dataset.find_videos(real_clips / "ucf101").videos) == 83


def test_a_second_build_into_the_same_folder_waits_its_turn(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with storage.LocalFolder(tmp_path / "set").locked() as is_ours:
        assert is_ours
        with pytest.raises(BuildError, match=r"another build is writing .*set: wait for it"):
            build_shard_set(videos, tmp_path / "set", options=OPTIONS, run_options=QUIET)
    made = build_shard_set(videos, tmp_path / "set", options=OPTIONS, run_options=QUIET)
    assert len(made.index) > 0
