"""Places are paths or URLs; folders of both kinds read what they wrote, whole or not there."""

import errno
from pathlib import Path

import numpy as np
import pytest

from har.errors import HarError
from har.shards.format import ShardWriter, write_shard
from har.shards.storage import LocalFolder, clear_errors, join, normalize, open_folder


def test_places_are_paths_or_urls(tmp_path: Path) -> None:
    assert normalize("s3://bucket/set/") == "s3://bucket/set"
    assert normalize((tmp_path / "a b").as_uri()) == str(tmp_path / "a b")
    assert normalize("set") == str(Path.cwd() / "set")
    assert join("s3://b/v", "A/a.avi") == "s3://b/v/A/a.avi"
    assert join("/data", "A/a.avi") == "/data/A/a.avi"
    assert join("/data", "/else/a.avi") == "/else/a.avi"
    assert join("/data", "s3://b/a.avi") == "s3://b/a.avi"
    assert isinstance(open_folder(tmp_path.as_uri()), LocalFolder)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_folder_reads_what_it_wrote(tmp_path: Path, kind: str) -> None:
    folder = open_folder(tmp_path / "set" if kind == "local" else "memory://folder")
    assert folder.names() == []
    folder.make()
    folder.write(".build/a.json", b"{}")
    with folder.staged("b.bin") as path:
        path.write_bytes(b"123")
    with folder.staged("c.bin"):
        pass
    assert folder.names() == [".build", "b.bin"]
    assert (folder.read(".build/a.json"), folder.size("b.bin")) == (b"{}", 3)
    assert folder.size("c.bin") is None
    with pytest.raises(FileNotFoundError):
        folder.read("c.bin")
    for name in (".build", "b.bin", "c.bin"):
        folder.remove(name)
    assert folder.names() == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of {} is full: make room"),
        (OSError(errno.EROFS, "Read-only"), "{} cannot be written (Read-only): mend that"),
        (OSError("Timed out"), "the work on {} broke off (Timed out): mend that"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "the work on {} broke off ([Errno 24] Too many open files): mend that",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/else/a.avi"),
            "the work on {} broke off ([Errno 2] No such file: '/else/a.avi'): mend that",
        ),
    ],
)
def test_errors_of_writing_are_one_sentence_with_what_is_kept(
    tmp_path: Path, error: OSError, sentence: str
) -> None:
    with pytest.raises(HarError) as caught, clear_errors(LocalFolder(tmp_path), HarError, "kept"):
        raise error
    said = sentence.format(tmp_path) + " and run the same command again; kept."
    assert str(caught.value) == said


def test_two_writers_of_one_shard_do_no_harm(tmp_path: Path) -> None:
    """A cluster that loses a worker runs its task again beside it."""
    pixels, name = np.ones((1, 2, 2, 3), np.uint8), "shard-000000.tar"
    with (
        write_shard(LocalFolder(tmp_path), name) as first,
        ShardWriter(tmp_path / name, "elsewhere-1-1") as second,
    ):
        for writer in (first, second):
            writer.add("k", pixels, 0, {})
        assert first.close() == second.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
