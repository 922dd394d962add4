"""Builds: whole or not there, the same bytes whatever happens, and no video vanishes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import killed_edits
import made_videos
import pytest
from edited_sets import check_set, stock_clips
from made_builds import SIZE, build, build_command, hook_decoder, tree_bytes
from semaphores import needs_semaphores

from har.pipeline.build import BuildError, BuildOptions, RunOptions, TaskError, load_rejects
from har.pipeline.decode import decode_clip
from har.pipeline.sampling import ClipSampler
from har.shards.format import (
    MANIFEST,
    ShardSetError,
    ShardWriter,
    load_manifest,
    verify_full,
)
from har.shards.storage import LocalFolder


def test_a_set_holds_what_the_decoder_gives_and_stock_webdataset_reads_it(
    videos: Path, built: Path
) -> None:
    manifest = load_manifest(built)
    assert (manifest.clip_shape, manifest.classes) == ((4, *SIZE, 3), ("Punch", "YoYo"))
    assert (len(manifest.index), manifest.rejects, manifest.grouping) == (16, 0, "ucf101")
    assert manifest.sampling == {"rule": "paper", "frames": 4}
    assert manifest.groups[0] == "Punch/g01"
    assert set(manifest.index[["decoded", "padded"]].tolist()) == {(12, 0)}
    clips = check_set(manifest)
    assert clips == stock_clips(manifest)
    for key, (class_name, group, pixels) in clips.items():
        _, name, number, _ = key.split("_")
        assert (class_name, group) == (name, f"{name}/{number}")
        clip = decode_clip(videos / name / f"{key}.avi", frames=4, size=SIZE)
        assert pixels == clip.pixels.tobytes()
    with tarfile.open(manifest.shard_path(0)) as tar:
        members = tar.getmembers()
        metadata = json.loads(tar.extractfile(members[2]).read())
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
    assert metadata["source"] == "Punch/v_Punch_g01_c01.avi"
    assert metadata["frame_numbers"] == [0, 3, 6, 9]
    assert [metadata[field] for field in ("fps", "frames_decoded", "padded")] == [25.0, 12, 0]


def test_workers_change_no_byte(videos: Path, built: Path, tmp_path: Path) -> None:
    build(videos, tmp_path / "two", run_options=RunOptions(2, quiet=True))
    assert tree_bytes(tmp_path / "two") == tree_bytes(built)


@needs_semaphores
def test_executors_change_no_byte(videos: Path, built: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        build(videos, tmp_path / "processes", executor=executor)
    assert tree_bytes(tmp_path / "processes") == tree_bytes(built)


def test_build_of_a_whole_set_changes_nothing(videos: Path, built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    build(videos, built)
    assert before == {path: path.stat().st_mtime_ns for path in built.iterdir()}


def test_other_options_or_videos_refuse_to_mix(videos: Path, built: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"sampling frames: 4 there, 8 now"):
        build(videos, built, BuildOptions(ClipSampler(frames=8), SIZE))
    (tmp_path / "half" / ".build").mkdir(parents=True)
    plan = {"hash": "other", "facts": {"videos": 3}}
    (tmp_path / "half" / ".build" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(BuildError, match="videos: 3 there, 16 now"):
        build(videos, tmp_path / "half")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(BuildError, match=r"not empty \(thesis\.txt\)"):
        build(videos, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def _start(videos: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        build_command(videos, out, "--workers", "2"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=_as_at_a_terminal,
    )  # fmt: skip


def _as_at_a_terminal() -> None:
    """A script's background jobs inherit "ignore Ctrl-C", and this suite may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_for(out: Path, pattern: str) -> None:
    deadline = time.monotonic() + 240
    while not list(out.glob(pattern)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _kill(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def _assert_resumes(videos: Path, out: Path, built: Path) -> None:
    if not (out / MANIFEST).exists():
        with pytest.raises(ShardSetError):
            load_manifest(out)
    build(videos, out)
    assert tree_bytes(out) == tree_bytes(built)


def test_killed_build_goes_on_and_ends_with_the_same_bytes(
    videos: Path, built: Path, tmp_path: Path
) -> None:
    child = _start(videos, tmp_path / "set")
    _wait_for(tmp_path / "set", "*.tar")
    _kill(child)
    _assert_resumes(videos, tmp_path / "set", built)


@pytest.mark.slow
def test_a_build_killed_at_any_moment_goes_on(videos: Path, tmp_path: Path) -> None:
    """At 20 of the moments at which it changes files."""
    shutil.copytree(videos, tmp_path / "pristine" / "videos")
    assert "20 of " in killed_edits.check("build", tmp_path, 20)


def test_finished_shards_are_kept(videos: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "set"
    add, calls = ShardWriter.add, []

    def fail_later(self: ShardWriter, *args: object) -> tuple[int, int]:
        calls.append(args)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return add(self, *args)

    monkeypatch.setattr(ShardWriter, "add", fail_later)
    with pytest.raises(BuildError, match="is full: make room and run the same command again"):
        build(videos, out)
    assert len(list(out.glob("*.tar"))) == 2
    assert not list(out.glob(".*.tmp"))
    monkeypatch.undo()
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    build(videos, out)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


@pytest.fixture
def troubled(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CSV: three good videos and each kind of bad one."""
    rows = ["path,label,group"]
    for number, path in enumerate(sorted(videos.rglob("*.avi"))[:3]):
        rows.append(f"{path},good,{number}")
    hook_decoder(
        tmp_path / "hook",
        monkeypatch,
        "if 'hangs' in path: time.sleep(3600)\nif 'crashes' in path: os.kill(os.getpid(), 11)",
    )
    for name in ("hangs", "crashes", "broken"):
        (tmp_path / f"{name}.avi").write_bytes(b"not a video")
    os.mkfifo(tmp_path / "pipe.avi")
    names = ("hangs", "crashes", "broken", "missing", "pipe")
    rows += [f"{name}.avi,bad,{name}" for name in names]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "list.csv"


def test_bad_videos_are_rejected_by_name_and_the_rest_is_built(
    troubled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    manifest = build(troubled, out, run_options=RunOptions(workers=1, timeout=1.5, quiet=True))
    assert (len(manifest.index), manifest.rejects) == (3, 5)
    assert {reject["path"]: reject["reason"] for reject in load_rejects(out)} == {
        "hangs.avi": "no answer within 1.5 s",
        "crashes.avi": "the decoder died of it (signal 11)",
        "broken.avi": "it cannot be decoded (Invalid data found when processing input)",
        "missing.avi": "it cannot be decoded (No such file or directory)",
        "pipe.avi": "it is not a regular file",
    }
    assert verify_full(manifest) == []


def test_a_fault_of_har_is_no_reject_but_stops_the_build_with_its_traceback(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook_decoder(tmp_path / "hook", monkeypatch, "if 'Punch_g02_c01' in path: {}['mistake']")
    with pytest.raises(TaskError) as error:
        build(videos, tmp_path / "set")
    assert "v_Punch_g02_c01.avi failed by a fault of har, not of the video" in str(error.value)
    assert "KeyError: 'mistake'" in str(error.value)
    assert not (tmp_path / "set" / MANIFEST).exists()


def test_too_many_rejects_fail_the_build_and_allowing_them_mends_it(tmp_path: Path) -> None:
    root, out = tmp_path / "videos", tmp_path / "set"
    made_videos.write(root / "A" / "good.avi", frames=6)
    for number in range(2):
        (root / "A" / f"bad{number}.avi").write_bytes(b"x")
    with pytest.raises(BuildError, match=r"2 of 3 videos give no clip .*--max-rejects 1 allows"):
        build(root, out, run_options=RunOptions(1, max_rejects=1, quiet=True))
    assert len(load_rejects(out)) == 2
    assert not (out / MANIFEST).exists()
    assert len(build(root, out).index) == 1
    (root / "A" / "good.avi").unlink()
    with pytest.raises(BuildError, match=r"none of the 2 videos .* mend them and run"):
        build(root, tmp_path / "other")
    made_videos.write(root / "A" / "bad0.avi", frames=6)
    assert len(build(root, tmp_path / "other").index) == 1


def test_dense_views_of_a_video_have_keys_of_their_own(videos: Path, tmp_path: Path) -> None:
    options = BuildOptions(ClipSampler("dense", 4, stride=2, clips=3), SIZE)
    manifest = build(videos, tmp_path / "set", options)
    assert len(manifest.index) == 48
    assert manifest.keys(slice(0, 3)) == [
        "v_Punch_g01_c01", "v_Punch_g01_c01@1", "v_Punch_g01_c01@2",
    ]  # fmt: skip
    assert manifest.index["view"][:4].tolist() == [0, 1, 2, 0]
    assert manifest.index["video"][:4].tolist() == [0, 0, 0, 1]
    assert manifest.sampling == {"rule": "dense", "frames": 4, "stride": 2, "clips": 3}
    assert verify_full(manifest) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_at_once_and_leaves_no_process(
    videos: Path, built: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "set"
    child = _start(videos, out)
    _wait_for(out, ".*.tmp")
    child.send_signal(number)
    _, stderr = child.communicate(timeout=60)  # decoders would keep standard error open
    assert child.returncode == 130
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr
    _assert_resumes(videos, out, built)


def test_a_second_build_into_the_same_folder_waits_its_turn(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with LocalFolder(tmp_path / "set").locked() as is_ours:
        assert is_ours
        with pytest.raises(BuildError, match=r"another build is writing .*set: wait for it"):
            build(videos, tmp_path / "set")
    assert len(build(videos, tmp_path / "set").index) == 16


@pytest.mark.real
def test_real_clips_build_verify_and_read(real_clips: Path, tmp_path: Path) -> None:
    manifest = build(real_clips / "ucf101", tmp_path / "set", BuildOptions())
    assert (len(manifest.index), manifest.rejects) == (83, 0)
    assert manifest.clip_shape == (16, 128, 171, 3)
    assert verify_full(manifest) == []
