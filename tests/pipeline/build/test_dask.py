"""A build on a Dask cluster: a real scheduler, two worker processes, one killed in the middle."""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import made_videos
import pytest
from made_builds import OPTIONS, build, build_command, tree_bytes

from har.pipeline.build import BuildError, dask


def test_a_scheduler_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask, "_CONNECT_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with (
            pytest.raises(dask.ClusterError, match="start one with 'dask scheduler'"),
            dask.dask_executor(address),
        ):
            pass


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(dask.ClusterError, match=r"'pip install \.\[cluster\]'"),
        dask.dask_executor("tcp://127.0.0.1:8786"),
    ):
        pass


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The scheduler's address and the two workers."""
    pytest.importorskip("distributed")
    known = tmp_path / "scheduler.json"
    here = ["--host", "127.0.0.1", "--no-dashboard"]
    scheduler = _start("scheduler", *here, "--port", "0", "--scheduler-file", str(known))
    while not known.exists():
        time.sleep(0.1)
    address = json.loads(known.read_text())["address"]
    workers = [
        _start(
            "worker", address, *here, "--no-nanny", "--nthreads", "1",
            "--local-directory", str(tmp_path / f"worker{number}"),
        )
        for number in range(2)
    ]  # fmt: skip
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_nothing(
    running: tuple[str, list[subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    address, workers = running
    videos = made_videos.tree(tmp_path / "videos", groups=8, clips=6)
    options = dataclasses.replace(OPTIONS, shard_bytes=100_000)
    build(videos, tmp_path / "local", options)
    out = tmp_path / "set"
    command = build_command(videos, out, "--shard-size", "100000", "--scheduler", address)
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while len(list(out.glob("*.tar"))) < 3 and child.poll() is None:
        time.sleep(0.005)
    workers[0].kill()
    assert len(list(out.glob("*.tar"))) < 16
    _, stderr = child.communicate(timeout=120)
    assert child.returncode == 0, stderr
    assert workers[1].poll() is None
    assert tree_bytes(out) == tree_bytes(tmp_path / "local")
    with dask.dask_executor(address) as executor:  # a folder that cannot be made anywhere
        (tmp_path / "file").write_text("")
        with pytest.raises(BuildError, match="cannot be made"):
            build(videos, tmp_path / "file" / "set", executor=executor)
