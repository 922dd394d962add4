"""Builds on a disk that is full, too small or read-only, and with a decoder out of memory.

All of it for real: a tmpfs of 64 KiB is mounted; where that is not allowed the tests skip and say
so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import made_videos
import pytest

from har.pipeline.build import storage
from har.pipeline.build.build import build_shard_set, load_rejects
from har.pipeline.build.executor import BuildError, RunOptions
from har.pipeline.build.plan import BuildOptions
from har.pipeline.sampling import ClipSampler
from har.shards.format import shard_set, verify

OPTIONS = BuildOptions(ClipSampler(frames=4), (24, 32))
QUIET = RunOptions(workers=1, quiet=True)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_videos.tree(tmp_path_factory.mktemp("faults") / "videos")


def _bytes(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB; skips where mounting one is not allowed."""
    at = tmp_path / "disk"
    at.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(at)]
    if not mount or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here (that takes root and CAP_SYS_ADMIN)")
    yield at
    subprocess.run(["umount", str(at)], check=True)


def test_a_disk_that_really_fills_up_is_one_sentence_and_can_be_mended(
    videos: Path, tiny_disk: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(storage.LocalFolder, "free", lambda _: None)  # else it is said before
    with pytest.raises(BuildError, match="is full: make room and run the same command again"):
        build_shard_set(videos, tiny_disk / "set", options=OPTIONS, run_options=QUIET)
    kept = sorted(path.name for path in (tiny_disk / "set").iterdir())
    assert kept
    assert not any(name.endswith(".tmp") for name in kept)
    assert shard_set.MANIFEST not in kept
    subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
    build_shard_set(videos, tiny_disk / "set", options=OPTIONS, run_options=QUIET)
    build_shard_set(videos, tmp_path / "undisturbed", options=OPTIONS, run_options=QUIET)
    assert _bytes(tiny_disk / "set") == _bytes(tmp_path / "undisturbed")


def test_a_disk_that_is_too_small_is_said_before_the_start(videos: Path, tiny_disk: Path) -> None:
    with pytest.raises(BuildError, match=r"has 0\.00 GB free: give an --out with more room"):
        build_shard_set(videos, tiny_disk / "set", options=OPTIONS, run_options=QUIET)


def test_output_that_may_not_be_written_is_one_sentence(videos: Path, tiny_disk: Path) -> None:
    """Root may write into any folder, but not on a file system that is mounted read-only."""
    half = tiny_disk / "half"
    half.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for out in (tiny_disk / "set", half):
        with pytest.raises(BuildError, match=r"cannot be (made|written) \(Read-only file system"):
            build_shard_set(videos, out, options=OPTIONS, run_options=QUIET)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_folder_without_the_right_to_write(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o555)
    with pytest.raises(BuildError, match=r"cannot be (made|written) \(Permission denied"):
        build_shard_set(videos, tmp_path / "mine", options=OPTIONS, run_options=QUIET)


_NO_MEMORY = """
import resource, har.pipeline.decode.clips as d
plain = d.decode_clips
def clips(path, *a, **k):
    if "g02_c01" in str(path):
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), resource.RLIM_INFINITY))
    try:
        return plain(path, *a, **k)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
d.decode_clips = clips
"""


def test_a_decoder_out_of_memory_costs_its_video_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(_NO_MEMORY)
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'hook'}:{path}")
    root = tmp_path / "videos"
    made_videos.tree(root, groups=1, clips=2)
    huge = root / "Punch" / "v_Punch_g02_c01.avi"
    made_videos.write(huge, size=(1440, 2560), frames=8)
    out = tmp_path / "set"
    clips = build_shard_set(root, out, options=OPTIONS, run_options=QUIET)
    assert len(clips.index) == 4
    (reject,) = load_rejects(out)
    assert reject["key"] == "v_Punch_g02_c01"
    assert reject["reason"].startswith(("it cannot be decoded", "the decoder died", "RuntimeError"))
    assert verify.full(clips) == []
