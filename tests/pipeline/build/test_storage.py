"""Videos and shard sets behind URLs: the same bytes as in a local folder, whole or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import made_videos
import numpy as np
import pytest
from made_server import s3

from har.pipeline import dataset
from har.pipeline.build import BuildError, BuildOptions, RunOptions, build_shard_set, shard_task
from har.pipeline.build.plan import package_versions
from har.pipeline.inspect import info
from har.pipeline.sampling import ClipSampler
from har.shards import storage
from har.shards.format import MANIFEST, ShardSetError, ShardWriter, load_manifest, write_shard
from har.shards.storage import StorageError

OPTIONS = BuildOptions(ClipSampler(frames=4), (24, 32))
QUIET = RunOptions(workers=1, quiet=True)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = made_videos.tree(tmp_path_factory.mktemp("store") / "videos", groups=3, clips=1)
    (root / "YoYo" / "broken.avi").write_bytes(b"x")
    (root / "classInd.txt").write_bytes(b"1 YoYo\r\n2 Punch\r\n")
    return root


@pytest.fixture(scope="module")
def local(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a local build, by name."""
    out = tmp_path_factory.mktemp("local") / "set"
    build_shard_set(videos, out, options=OPTIONS, run_options=QUIET)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def _upload(root: Path, url: str) -> None:
    from fsspec.core import url_to_fs

    files, at = url_to_fs(url)
    for path in root.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{at}/{path.relative_to(root).as_posix()}", path.read_bytes())


def _listing(url: str) -> dict[str, int]:
    folder = storage.open_folder(url)
    assert isinstance(folder, storage.RemoteFolder)
    return folder.find()


def _bytes(url: str) -> dict[str, bytes]:
    return {name: storage.read_bytes(f"{url}/{name}") for name in _listing(url)}


def test_places_are_paths_or_urls(tmp_path: Path) -> None:
    assert storage.normalize("s3://bucket/set/") == "s3://bucket/set"
    assert storage.normalize((tmp_path / "a b").as_uri()) == str(tmp_path / "a b")
    assert storage.normalize("set") == str(Path.cwd() / "set")
    assert storage.join("s3://b/v", "A/a.avi") == "s3://b/v/A/a.avi"
    assert storage.join("/data", "A/a.avi") == "/data/A/a.avi"
    assert storage.join("/data", "/else/a.avi") == "/else/a.avi"
    assert storage.join("/data", "s3://b/a.avi") == "s3://b/a.avi"
    assert isinstance(storage.open_folder(tmp_path.as_uri()), storage.LocalFolder)


def test_a_build_between_urls_gives_the_bytes_of_a_local_one(
    videos: Path, local: dict[str, bytes]
) -> None:
    _upload(videos, "memory://videos")
    made = build_shard_set("memory://videos", "memory://set/", options=OPTIONS, run_options=QUIET)
    assert _bytes("memory://set") == local
    assert (made.classes, len(made.index), made.rejects) == (("YoYo", "Punch"), 6, 1)
    assert "broken.avi: it cannot be decoded" in info.describe_build(made, "memory://set")
    assert "6 of 6 videos" in info.describe_set("memory://set")
    again = build_shard_set("memory://videos", "memory://set", options=OPTIONS, run_options=QUIET)
    assert again.digest == made.digest
    with pytest.raises(BuildError, match="frames: 4 there, 8 now"):
        build_shard_set(
            "memory://videos", "memory://set", options=BuildOptions(ClipSampler(frames=8))
        )


def test_a_build_to_a_url_goes_on_where_it_stopped(
    videos: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, first_made = shard_task.build_shard, threading.Event()

    def stops(one: shard_task.ShardTask, *given: object) -> shard_task.Report:
        if one.number:
            assert first_made.wait(60)
            raise StorageError("the network is gone.")
        report = run(one, *given)
        first_made.set()
        return report

    monkeypatch.setattr(shard_task, "build_shard", stops)
    with pytest.raises(StorageError, match="network is gone"):
        build_shard_set(videos, "memory://half", options=OPTIONS, run_options=QUIET)
    names = set(_listing("memory://half"))
    assert {"shard-000000.tar", ".build/shard-000000.json", ".build/plan.json"} == names
    with pytest.raises(ShardSetError, match=r"no shard set at memory://half"):
        load_manifest("memory://half")
    monkeypatch.setattr(shard_task, "build_shard", run)
    build_shard_set(videos, "memory://half", options=OPTIONS, run_options=QUIET)
    assert _bytes("memory://half") == local


def test_a_csv_behind_a_url_names_videos_beside_it(tmp_path: Path) -> None:
    rows = "path,label,group,split\na/1.avi,run,g,train\nmissing.avi,sit,h,test\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.avi").write_bytes(b"123")
    (tmp_path / "list.csv").write_text(rows)
    _upload(tmp_path, "memory://csv")
    far = dataset.find_videos("memory://csv/list.csv")
    near = dataset.find_videos(tmp_path / "list.csv")
    assert far.videos == near.videos
    assert [video.size for video in far.videos] == [3, -1]
    assert far.root == "memory://csv"


def test_what_a_url_cannot_do_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nosuch://x cannot be opened .*: give a path or a URL"):
        _listing("nosuch://x")
    with pytest.raises(dataset.DatasetError, match="there are no videos at memory://nothing"):
        dataset.find_videos("memory://nothing")
    _upload(tmp_path, "memory://full")
    storage.open_folder("memory://mine").write("thesis.txt", b"x")
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "a.avi").write_bytes(b"x")
    with pytest.raises(BuildError, match=r"not empty \(thesis\.txt\)"):
        build_shard_set(tmp_path, "memory://mine", options=OPTIONS)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(StorageError, match=r"needs fsspec .*: 'pip install \.\[cloud\]'"):
        _listing("s3://bucket/videos")


def test_two_writers_of_one_shard_do_no_harm(tmp_path: Path) -> None:
    """A cluster that loses sight of a worker runs its task again beside it."""
    folder, pixels = storage.open_folder(tmp_path), np.ones((1, 2, 2, 3), np.uint8)
    with write_shard(folder, "shard-000000.tar") as first:
        first.add("k", pixels, 0, {})
        other = ShardWriter(tmp_path / "shard-000000.tar", "elsewhere-1-1")
        with other as second:
            second.add("k", pixels, 0, {})
            made = [first.close(), second.close()]
    assert made[0] == made[1]
    assert os.listdir(tmp_path) == ["shard-000000.tar"]


def test_a_worker_with_other_versions_is_refused(videos: Path, tmp_path: Path, monkeypatch) -> None:
    plain = package_versions()
    monkeypatch.setattr(shard_task, "package_versions", lambda: plain)
    tasks: list[shard_task.ShardTask] = []

    def submit(_: object, one: shard_task.ShardTask) -> Future:
        tasks.append(one)
        done: Future = Future()
        done.set_exception(OSError(30, "Read-only file system"))
        return done

    with pytest.raises(BuildError, match=r"cannot be written \(Read-only file system\)"):
        build_shard_set(
            videos, tmp_path / "set", options=OPTIONS, run_options=QUIET,
            executor=SimpleNamespace(submit=submit),
        )  # fmt: skip
    monkeypatch.setattr(shard_task, "package_versions", lambda: {**plain, "av": "1.0"})
    with pytest.raises(shard_task.TaskError, match=r"other versions .*av: .* there, \"1\.0\" now"):
        shard_task.build_shard(tasks[0])


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket of a real S3-speaking server on loopback."""
    pytest.importorskip("s3fs")
    with s3("clips"):
        yield "s3://clips"


def _command(videos: str, out: str) -> list[str]:
    program = "from har.pipeline.cli import shards_main; shards_main()"
    return [
        sys.executable, "-c", program, "build", videos, "--out", out,
        "--frames", "4", "--size", "24x32", "--workers", "2",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_build_from_s3_to_s3_killed_and_resumed_gives_the_bytes_of_a_local_one(
    bucket: str, videos: Path, local: dict[str, bytes]
) -> None:
    _upload(videos, f"{bucket}/videos")
    out = f"{bucket}/set"
    child = subprocess.Popen(_command(f"{bucket}/videos", out), stderr=subprocess.DEVNULL)
    shards: list[str] = []
    while not shards and child.poll() is None:
        shards = [name for name in _listing(out) if name.endswith(".tar")]
    child.kill()
    child.wait()
    assert MANIFEST not in _listing(out)
    done = subprocess.run(
        _command(f"{bucket}/videos", out), check=True, capture_output=True, text=True
    )
    assert "6 clips of 6 videos in 6 shards" in done.stdout
    assert _bytes(out) == local


@pytest.mark.slow
def test_an_s3_that_refuses_is_one_sentence(bucket: str, videos: Path) -> None:
    done = subprocess.run(
        _command(str(videos), "s3://no-such-bucket/set"), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(
        "Error: s3://no-such-bucket/set/.build/plan.json cannot be written ("
    )
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_report_of_a_task_is_json(tmp_path: Path) -> None:
    folder = storage.open_folder(tmp_path)
    folder.write(".build/shard-000000.json", json.dumps({"plan": "p"}).encode())
    assert json.loads(folder.read(".build/shard-000000.json")) == {"plan": "p"}
    folder.remove(".build")
    assert folder.names() == []
