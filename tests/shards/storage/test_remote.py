"""Shard sets behind URLs: the same batches as from a folder, through a bounded cache, or one
sentence for whatever a server, a network or a disk does."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import xxhash
from click.testing import CliRunner
from made_server import s3, serving
from made_shards import make_shards
from made_tars import flip_bit, make_tars

from har.pipeline.cli import shards_main
from har.shards.format import ClipReader, ShardSetError, load_manifest
from har.shards.loading import BatchSampler, Loader, LoaderOptions
from har.shards.storage import RemoteFolder, ShardCache, StorageError, open_folder, remote_folder
from har.shards.storage.cache import default_max_bytes
from har.shards.storage.place import url_of

pytest.importorskip("aiohttp")
CLIPS, SHARDS = 68, 17


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_tars(tmp_path_factory.mktemp("remote") / "set", SHARDS, CLIPS)


@pytest.fixture
def server(made, tmp_path, monkeypatch):
    monkeypatch.setenv("HAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HAR_CACHE_SIZE", "1GB")
    monkeypatch.setattr(remote_folder, "PAUSE", 0.01)
    with serving(made.root.parent) as one:
        yield one


@pytest.fixture
def far(server):
    return load_manifest(f"{server.url}/set")


def batches(clips, *, epochs=2, workers=2, block_size=0, batch=8, **options):
    indices = np.arange(len(clips.index))
    plan = BatchSampler(indices, batch, seed=1, shuffle=True, block_size=block_size)
    with Loader(clips, plan, LoaderOptions(workers=workers, **options)) as loader:
        return [contents(batch) for epoch in range(epochs) for batch in loader.epoch(epoch)]


def contents(batch):
    return batch.keys, batch.pixels.numpy().tobytes()


def sizes(cache):
    total = 0
    for path in Path(cache).glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
            total += path.stat().st_size
    return total


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("held", [1, 3, SHARDS])
def test_batches_are_those_of_the_folder_for_any_cache_that_holds_a_shard(
    made, far, server, monkeypatch, tmp_path, held, workers
):
    room = held * max(shard.bytes for shard in made.shards)
    monkeypatch.setenv("HAR_CACHE_SIZE", str(room))
    most, done = [0], threading.Event()

    def look():
        while not done.wait(0.002):
            most[0] = max(most[0], sizes(tmp_path / "cache"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        fetched = batches(far, workers=workers, epochs=1, batch=16)
        assert fetched == batches(made, epochs=1, batch=16)
    finally:
        done.set()
        thread.join()
    assert 0 < most[0] <= room
    if held == SHARDS:
        assert {server.asked[shard.name] for shard in made.shards} == {1}


def test_a_window_fetches_each_shard_about_once_where_a_permutation_fetches_many_times(
    made, far, server, monkeypatch, tmp_path
):
    monkeypatch.setenv("HAR_CACHE_SIZE", str(9 * made.shards[0].bytes))
    fetched = []
    for block_size in (32, 0):
        server.asked.clear()
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        options = {"epochs": 1, "block_size": block_size}
        assert batches(far, **options) == batches(made, **options)
        fetched.append(sum(n for name, n in server.asked.items() if name.endswith(".tar")))
    assert fetched[0] <= 2 * SHARDS + 9  # 9: the next epoch's first ones
    assert fetched[1] > max(2 * SHARDS, 1.5 * fetched[0])  # 43 to 48 were seen


def test_the_first_batch_comes_when_its_shards_are_there(far, server):
    plan = BatchSampler(np.arange(CLIPS), 4)  # in order: batch 0 is shard 0
    server.faults = {shard.name: ["hold"] for shard in far.shards[2:]}
    with Loader(far, plan) as loader:
        first = next(loader.epoch())
        assert first.keys == far.keys(slice(0, 4))
        server.go.set()


def test_what_is_in_the_cache_is_not_fetched_again(far, server, tmp_path):
    batches(far, epochs=1)
    asked = server.asked.total()
    batches(far, epochs=2)
    assert server.asked.total() == asked
    ShardCache(tmp_path / "cache", 2 * far.shards[0].bytes)  # a lower limit trims it
    assert sizes(tmp_path / "cache") == 2 * far.shards[0].bytes


@pytest.mark.parametrize("how", ["cut", "wrong", "500", "429"])
def test_a_fault_that_passes_is_not_seen(made, far, server, how):
    server.faults = {shard.name: [how, ""] for shard in far.shards}
    assert batches(far, epochs=1) == batches(made, epochs=1)


@pytest.mark.parametrize(
    ("how", "text", "tries"),
    [
        ("cut", r"shard-000003\.tar cannot be fetched \(.*; 5 tries\)", 5),
        ("wrong", r"shard-000003\.tar does not have the checksum of the manifest", 2),
        ("404", r"shard-000003\.tar is not there, and the manifest names it", 1),
        ("403", r"shard-000003\.tar cannot be fetched \([^;]*\): correct", 1),
    ],
)
def test_a_fault_that_stays_is_one_sentence_and_no_corrupt_clip(far, server, how, text, tries):
    server.faults = {"shard-000003.tar": [how]}
    with pytest.raises(StorageError, match=text) as error:
        batches(far, max_corrupt=99)
    assert server.url in str(error.value)
    assert "\n" not in str(error.value)
    assert server.asked["shard-000003.tar"] == tries


def test_a_slow_server_is_not_a_stuck_worker(made, far, server):
    server.faults = {shard.name: ["slow"] for shard in far.shards}
    plan = BatchSampler(np.arange(8), 8)
    with Loader(far, plan, LoaderOptions(timeout=0.3)) as loader:
        assert next(loader.epoch()).keys == made.keys(slice(0, 8))


def test_a_server_that_falls_silent_is_asked_again(made, server, monkeypatch):
    monkeypatch.setattr(remote_folder, "SILENCE", 0.3)
    server.faults = {"shard-000000.tar": ["stall", ""]}
    with contextlib.closing(ClipReader(load_manifest(f"{server.url}/set"))) as reader:
        assert np.array_equal(reader.read(0), ClipReader(made).read(0))
    assert server.asked["shard-000000.tar"] == 2


def fetched(cache, far, number):
    return cache.fetch(open_folder(far.root), far.shards[number])


def test_a_full_disk_is_met_by_evicting_and_then_is_one_sentence(far, monkeypatch):
    batches(far, epochs=1)
    real_fetch, full = RemoteFolder.fetch, [True]

    def fails(self, file, path, **options):
        if full[0]:
            full[0] = full[0] == "always"
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fetch(self, file, path, **options)

    monkeypatch.setattr(RemoteFolder, "fetch", fails)
    cache = ShardCache()
    cache.path(far.shards[0]).unlink()
    os.close(fetched(cache, far, 0))
    assert len(list(cache.folder.glob("*.tar"))) == SHARDS - 1  # another one had to go
    full[0] = "always"
    cache.path(far.shards[0]).unlink()
    with pytest.raises(StorageError, match=r"cannot take http.*No space left on device.*HAR_CACHE"):
        fetched(cache, far, 0)
    assert not list(cache.folder.glob("*.part"))


def test_a_really_full_disk_is_one_sentence(far, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk here")
    try:
        monkeypatch.setenv("HAR_CACHE", str(disk))
        with pytest.raises(StorageError, match="No space left on device"):
            batches(far)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_sizes_of_the_cache(monkeypatch):
    for text, size in (("7", 7), ("1.5 kb", 1500), ("2TB", 2 * 10**12), ("1 MiB", 1 << 20)):
        monkeypatch.setenv("HAR_CACHE_SIZE", text)
        assert default_max_bytes() == size
    for text in ("0", "much", "-1", "3 GX", "nan"):
        monkeypatch.setenv("HAR_CACHE_SIZE", text)
        with pytest.raises(StorageError, match=r"HAR_CACHE_SIZE=.* is no size"):
            default_max_bytes()


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("HAR_CACHE_SIZE", "9KB", r"cache of 9,000 bytes cannot hold shard-.* to more"),
        ("HAR_CACHE", "/dev/null/cache", r"cannot be used .* set HAR_CACHE"),
    ],
)
def test_a_cache_that_cannot_work_is_one_sentence(far, monkeypatch, variable, value, text):
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError, match=text):
        batches(far)


def test_the_least_recently_used_goes_first_and_what_is_open_stays_readable(made, far, tmp_path):
    cache = ShardCache(tmp_path / "own", 3 * far.shards[0].bytes)
    for number in (0, 1, 2):
        os.close(fetched(cache, far, number))
        time.sleep(0.01)
    held = [fetched(cache, far, number) for number in (0, 2)]  # 0 is used again, and both are open
    os.close(fetched(cache, far, 3))
    exists = [cache.path(shard).exists() for shard in far.shards[:4]]
    assert exists == [True, False, True, True]
    for number in (4, 5, 6):
        os.close(fetched(cache, far, number))
    assert sizes(cache.folder) == cache.max_bytes
    for number, descriptor in zip((0, 2), held, strict=True):
        assert not cache.path(far.shards[number]).exists()
        assert os.pread(descriptor, 1 << 20, 0) == made.shard_path(number).read_bytes()
        os.close(descriptor)


def test_two_loaders_of_one_process_share_a_cache_that_holds_one_shard(made, far, monkeypatch):
    monkeypatch.setenv("HAR_CACHE_SIZE", str(max(shard.bytes for shard in made.shards)))
    plan = BatchSampler(np.arange(CLIPS), 8)
    with Loader(far, plan) as first, Loader(far, plan) as second:
        for one, two in zip(first.epoch(), second.epoch(), strict=True):
            assert one.keys == two.keys
            assert np.array_equal(one.pixels, two.pixels)


def test_a_copy_that_went_bad_in_the_cache_names_the_copy(far, tmp_path):
    batches(far, epochs=1)
    copy = tmp_path / "cache" / f"{far.shards[0].xxh3}.tar"
    flip_bit(copy, int(far.index["offset"][0]) + 5)
    with pytest.raises(ShardSetError, match=rf"do not match their checksum.*remove .*{copy.name}"):
        batches(far, epochs=1)
    os.truncate(copy, far.shards[0].bytes - 1)  # one of another size is not taken for the shard
    batches(far, epochs=1)


_READER = """
import hashlib, sys, numpy as np
from har.shards.format import load_manifest
from har.shards.loading import BatchSampler, Loader
clips = load_manifest(sys.argv[1])
plan = BatchSampler(np.arange(len(clips.index)), 8, seed=1, shuffle=True)
state = hashlib.sha256()
with Loader(clips, plan) as loader:
    for epoch in range(2):
        for batch in loader.epoch(epoch):
            state.update(batch.pixels.numpy().tobytes())
print(state.hexdigest())
"""


def reader_process(far):
    return subprocess.Popen(
        [sys.executable, "-c", _READER, far.root], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip


@pytest.mark.parametrize("held", [pytest.param(4, marks=pytest.mark.slow), SHARDS])
def test_two_processes_share_a_cache(made, far, server, monkeypatch, held):
    expected = hashlib.sha256(b"".join(pixels for _, pixels in batches(made))).hexdigest()
    monkeypatch.setenv("HAR_CACHE_SIZE", str(held * made.shards[0].bytes))
    server.asked.clear()
    both = [reader_process(far) for _ in range(2)]
    assert [one.communicate()[0].strip() for one in both] == [expected] * 2
    if held == SHARDS:  # one fetches, the other waits
        assert all(server.asked[shard.name] == 1 for shard in made.shards)


def test_a_killed_download_leaves_no_wrong_shard_and_the_next_run_goes_on(
    made, far, server, tmp_path
):
    server.faults = {shard.name: ["stall", ""] for shard in far.shards}
    child = reader_process(far)
    with child:
        deadline = time.monotonic() + 240  # torch is imported first
        while not [p for p in (tmp_path / "cache").glob("*.part") if p.stat().st_size]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    assert not list((tmp_path / "cache").glob("*.tar"))
    server.faults = {}
    assert batches(far) == batches(made)
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_place_without_a_set_or_without_a_server_is_one_sentence(server, monkeypatch):
    with pytest.raises(ShardSetError, match=r"no shard set at http://.*/nothing .no manifest"):
        load_manifest(f"{server.url}/nothing/")
    with pytest.raises(StorageError, match=r"manifest\.json cannot be fetched \("):
        load_manifest("http://127.0.0.1:1/set")
    with pytest.raises(StorageError, match="cannot be opened"):
        load_manifest("nosuch://host/set")
    server.faults = {"index.npy": ["wrong"]}
    with pytest.raises(ShardSetError, match=r"index\.npy is not the index that manifest\.json"):
        load_manifest(f"{server.url}/set")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(StorageError, match=r"s3://b/set needs fsspec .*pip install .\[cloud\]"):
        load_manifest("s3://b/set")


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://b/set/", "s3://b/set"), (Path("http://h:1/a/b"), "http://h:1/a/b"),
        ("data/set", None), ("/data/a:/b", None), ("file:///data/set", None), ("C:", None),
    ],
)  # fmt: skip
def test_urls_are_told_from_paths_even_through_pathlib(place, url):
    assert url_of(place) == url


def test_a_file_url_is_a_folder(made):
    assert load_manifest(made.root.as_uri()).root == made.root


def run_cli(*arguments):
    return CliRunner().invoke(shards_main, [str(one) for one in arguments])


def test_info_verify_and_preview_take_urls(server, made, tmp_path):
    url = f"{server.url}/set"
    assert "68 of 68 videos" in run_cli("info", url).output
    assert "leak" in run_cli("info", url, "--split", "paper").output
    for how in ("--quick", "--full"):
        done = run_cli("verify", url, how)
        assert (done.exit_code, f"{CLIPS} clips in {SHARDS} shards" in done.output) == (0, True)
    assert not list((tmp_path / "cache").glob("*.tar"))  # verify looks at the store
    assert run_cli("preview", url, "-o", tmp_path / "sheet.png", "--rows", 2).exit_code == 0
    server.faults = {"shard-000002.tar": ["wrong"], "shard-000004.tar": ["404"]}
    done = run_cli("verify", url)
    assert done.exit_code == 1
    assert "shard-000002.tar, sample v_" in done.output
    assert "shard-000004.tar: cannot be read" in done.output
    server.faults = {"shard-000003.tar": ["403"] * 9}
    done = run_cli("verify", url)
    assert done.exit_code == 2
    assert "shard-000003.tar cannot be fetched (403" in done.output


@pytest.fixture
def bucket(made, monkeypatch, tmp_path):
    """The URL of the set in a real S3-speaking server on loopback, and the server's process."""
    fsspec = pytest.importorskip("fsspec.core")
    pytest.importorskip("s3fs")
    monkeypatch.setenv("HAR_CACHE", str(tmp_path / "cache"))
    with s3("remote") as process:
        files, _ = fsspec.url_to_fs("s3://remote")
        for path in made.root.iterdir():
            files.pipe_file(f"remote/set/{path.name}", path.read_bytes())
        yield "s3://remote/set", files, process


@pytest.mark.slow
def test_a_set_in_s3_gives_the_batches_of_the_folder_and_its_faults_are_one_sentence(
    made, bucket, tmp_path, monkeypatch
):
    url, files, process = bucket
    monkeypatch.setattr(remote_folder, "PAUSE", 0.01)
    far = load_manifest(url)
    assert batches(far) == batches(made)
    assert "every byte as written" in run_cli("verify", url).output
    shutil.rmtree(tmp_path / "cache")
    data = bytearray(files.cat_file("remote/set/shard-000003.tar"))
    data[700] ^= 1
    files.pipe_file("remote/set/shard-000003.tar", bytes(data))
    with pytest.raises(StorageError, match=r"s3://remote/set/shard-0+3\.tar does not have the ch"):
        batches(far)
    files.rm("remote/set/shard-000003.tar")
    with pytest.raises(StorageError, match=r"s3://remote/set/shard-000003\.tar is not there"):
        batches(far)
    with pytest.raises(ShardSetError, match="no shard set at s3://remote/other"):
        load_manifest("s3://remote/other")
    process.kill()
    process.wait()
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(remote_folder, "TRIES", 1)
    with pytest.raises(StorageError, match=r"s3://remote/set/shard-.* cannot be fetched \("):
        batches(far)


_COMMANDS = """
import sys
from har.training.cli.train import train_main
from har.training.cli.results import eval_main
{"train": train_main, "eval": eval_main}[sys.argv[1]](sys.argv[2:])
"""


@pytest.mark.slow
def test_a_run_trains_and_is_evaluated_from_a_url(server, tmp_path):
    make_shards(tmp_path / "set")
    server.root = tmp_path
    clips = load_manifest(tmp_path / "set")
    path = clips.shard_path(0)
    body = json.loads((tmp_path / "set" / "manifest.json").read_text())
    body["shards"][0]["xxh3"] = xxhash.xxh3_128_hexdigest(path.read_bytes())
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(body))
    run = tmp_path / "run"

    def command(*words):
        done = subprocess.run(
            [sys.executable, "-c", _COMMANDS, *map(str, words)], capture_output=True, text=True,
            cwd=Path(__file__).parents[3], check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    command(
        "train", "--model", "convlstm", "--model-options", "hidden=[4],stem_channels=4",
        "--shards", f"{server.url}/set", "--frames", 2, "--size", 16, "--epochs", 1,
        "--batch-size", 4, "--device", "cpu", "--out", run,
    )  # fmt: skip
    assert "accuracy" in command("eval", run, "--views", 2)
    assert "accuracy" in command("eval", run, "--shards", f"{server.url}/set")
    assert server.asked["shard-000000.tar"] == 1
