"""Builds on a disk that is full, too small or read-only, and with a decoder out of memory.

All of it for real: a tmpfs of 64 KiB is mounted; where that is not allowed the tests skip and say
so.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import made_videos
import pytest
from made_builds import build, hook_decoder, tree_bytes

from har.pipeline.build import BuildError, load_rejects
from har.shards.format import MANIFEST, verify_full
from har.shards.storage import LocalFolder


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB; skips where mounting one is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if not mount or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here (that takes root and CAP_SYS_ADMIN)")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_is_one_sentence_and_can_be_mended(
    videos: Path, built: Path, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tiny_disk / "set"
    with pytest.raises(BuildError, match=r"has \d+\.\d kB free: make room, or take a folder"):
        build(videos, out)
    monkeypatch.setattr(LocalFolder, "free_bytes", lambda _: None)
    with pytest.raises(BuildError, match="is full: make room and run the same command again"):
        build(videos, out)
    names = sorted(path.name for path in out.iterdir())
    assert names
    assert not any(name.endswith(".tmp") for name in names)
    assert MANIFEST not in names
    subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
    build(videos, out)
    assert tree_bytes(out) == tree_bytes(built)


def test_output_that_may_not_be_written_is_one_sentence(
    videos: Path, tiny_disk: Path, tmp_path: Path
) -> None:
    """Root may write into any folder, but not on a file system that is mounted read-only."""
    (tiny_disk / "half").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for out in (tiny_disk / "set", tiny_disk / "half"):
        with pytest.raises(BuildError, match=r"cannot be (made|written) \(Read-only file system"):
            build(videos, out)


def test_output_below_a_file_or_in_a_forbidden_folder(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="give another --out"):
        build(videos, tmp_path / "file" / "set")
    if os.geteuid():  # root may write into any folder
        (tmp_path / "mine").mkdir(mode=0o555)
        with pytest.raises(BuildError, match=r"cannot be (made|written) \(Permission denied"):
            build(videos, tmp_path / "mine")


_NO_MEMORY = """
if "g02_c01" in str(path):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), resource.RLIM_INFINITY))
    try:
        return plain(path, *args, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_a_decoder_out_of_memory_costs_its_video_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook_decoder(tmp_path / "hook", monkeypatch, _NO_MEMORY)
    root, out = made_videos.tree(tmp_path / "videos", groups=1), tmp_path / "set"
    made_videos.write(root / "Punch" / "v_Punch_g02_c01.avi", size=(1440, 2560), frames=8)
    manifest = build(root, out)
    assert len(manifest.index) == 4
    (reject,) = load_rejects(out)
    assert reject["key"] == "v_Punch_g02_c01"
    assert reject["reason"].startswith(("it cannot be decoded", "the decoder died"))
    assert verify_full(manifest) == []
