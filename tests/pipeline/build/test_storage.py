"""Videos and shard sets behind URLs: the same bytes as in a local folder, whole or not there."""

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_builds import build, build_command, tree_bytes, upload, url_bytes
from made_server import s3

from har.pipeline import dataset
from har.pipeline.build import shard_task
from har.pipeline.build.executor import BuildError
from har.pipeline.build.plan import BuildOptions, package_versions
from har.pipeline.inspect import info
from har.pipeline.sampling import ClipSampler
from har.shards.format import MANIFEST, ShardSetError, load_manifest
from har.shards.storage import RemoteFolder, StorageError, open_folder


def test_a_build_between_urls_gives_the_bytes_of_a_local_one(
    few_videos: Path, few_built: Path
) -> None:
    upload(few_videos, "memory://videos")
    manifest = build("memory://videos", "memory://set/")
    assert url_bytes("memory://set") == tree_bytes(few_built)
    assert (manifest.classes, len(manifest.index), manifest.rejects) == (("YoYo", "Punch"), 6, 1)
    assert "v_YoYo_g09_c01.avi: it cannot be decoded" in info.describe_build(
        manifest, "memory://set"
    )
    assert "6 of 6 videos" in info.describe_set("memory://set")
    assert build("memory://videos", "memory://set").digest == manifest.digest
    with pytest.raises(BuildError, match="frames: 4 there, 8 now"):
        build("memory://videos", "memory://set", BuildOptions(ClipSampler(frames=8)))


def test_a_build_to_a_url_goes_on_where_it_stopped(
    few_videos: Path, few_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_shard, first_is_built = shard_task.build_shard, threading.Event()

    def stops(task: shard_task.ShardTask, *args: object) -> shard_task.Report:
        if task.number:
            assert first_is_built.wait(60)
            raise StorageError("the network is gone.")
        report = build_shard(task, *args)
        first_is_built.set()
        return report

    with monkeypatch.context() as patch:
        patch.setattr(shard_task, "build_shard", stops)
        with pytest.raises(StorageError, match="network is gone"):
            build(few_videos, "memory://half")
    names = {"shard-000000.tar", ".build/shard-000000.json", ".build/plan.json"}
    assert set(RemoteFolder("memory://half").find()) == names
    with pytest.raises(ShardSetError, match=r"no shard set at memory://half"):
        load_manifest("memory://half")
    build(few_videos, "memory://half")
    assert url_bytes("memory://half") == tree_bytes(few_built)


def test_a_csv_behind_a_url_names_videos_beside_it(tmp_path: Path) -> None:
    rows = "path,label,group,split\na/1.avi,run,g,train\nmissing.avi,sit,h,test\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.avi").write_bytes(b"123")
    (tmp_path / "list.csv").write_text(rows)
    upload(tmp_path, "memory://csv")
    remote = dataset.find_videos("memory://csv/list.csv")
    assert remote.videos == dataset.find_videos(tmp_path / "list.csv").videos
    assert [video.size for video in remote.videos] == [3, -1]
    assert remote.root == "memory://csv"


def test_what_a_url_cannot_do_is_one_sentence(few_videos: Path) -> None:
    with pytest.raises(StorageError, match=r"nosuch://x cannot be opened .*: give a path or a URL"):
        open_folder("nosuch://x")
    with pytest.raises(dataset.DatasetError, match="there are no videos at memory://nothing"):
        dataset.find_videos("memory://nothing")
    RemoteFolder("memory://mine").write("thesis.txt", b"x")
    with pytest.raises(BuildError, match=r"not empty \(thesis\.txt\)"):
        build(few_videos, "memory://mine")


def test_a_worker_with_other_versions_is_refused(
    few_videos: Path, tmp_path: Path, monkeypatch
) -> None:
    versions = package_versions()
    monkeypatch.setattr(shard_task, "package_versions", lambda: versions)
    tasks: list[shard_task.ShardTask] = []

    def submit(_: object, task: shard_task.ShardTask) -> Future:
        tasks.append(task)
        future: Future = Future()
        future.set_exception(OSError(30, "Read-only file system"))
        return future

    with pytest.raises(BuildError, match=r"cannot be written \(Read-only file system\)"):
        build(few_videos, tmp_path / "set", executor=SimpleNamespace(submit=submit))
    monkeypatch.setattr(shard_task, "package_versions", lambda: {**versions, "av": "1.0"})
    with pytest.raises(shard_task.TaskError, match=r"other versions .*av: .* there, \"1\.0\" now"):
        shard_task.build_shard(tasks[0])


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket of a real S3-speaking server on loopback."""
    pytest.importorskip("s3fs")
    with s3("clips"):
        yield "s3://clips"


@pytest.mark.slow
def test_a_build_from_s3_to_s3_killed_and_resumed_gives_the_bytes_of_a_local_one(
    bucket: str, few_videos: Path, few_built: Path
) -> None:
    upload(few_videos, f"{bucket}/videos")
    out = RemoteFolder(f"{bucket}/set")
    command = build_command(f"{bucket}/videos", out.url, "--workers", "2")
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while child.poll() is None and not any(name.endswith(".tar") for name in out.find()):
        pass
    child.kill()
    child.wait()
    assert MANIFEST not in out.find()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "6 clips of 6 videos in 6 shards" in done.stdout
    assert url_bytes(out.url) == tree_bytes(few_built)
    for name in ("shard-000002.tar", MANIFEST):  # and repaired
        out.remove(name)
        subprocess.run(command, check=True, capture_output=True)
        assert url_bytes(out.url) == tree_bytes(few_built)


@pytest.mark.slow
def test_an_s3_that_refuses_is_one_sentence(bucket: str, few_videos: Path) -> None:
    command = build_command(few_videos, "s3://no-such-bucket/set")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "Error: s3://no-such-bucket/set/.build/plan.json cannot be written ("
    )
    assert len(done.stderr.strip().splitlines()) == 1
