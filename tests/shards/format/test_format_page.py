"""docs/format.md is enough to read a set: by tarfile, json and numpy alone, without har."""

import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import xxhash

from har.pipeline.build.build import build_shard_set
from har.pipeline.build.plan import BuildOptions
from har.pipeline.sampling import ClipSampler
from har.shards.edit import relabel_clips, remove_clips
from har.shards.format import SCHEMA, ClipReader, load_manifest

PAGE = Path(__file__).parents[3] / "docs" / "format.md"


@pytest.fixture(scope="module")
def root(synthetic_videos, tmp_path_factory) -> Path:
    """Two clips a video, and one video that is no video."""
    out = tmp_path_factory.mktemp("format") / "set"
    options = BuildOptions(ClipSampler("dense", 4, 2, 2), (24, 32))
    build_shard_set(synthetic_videos, out, options=options)
    return out


@pytest.fixture(scope="module")
def edited(root, tmp_path_factory) -> Path:
    """The same set with clips removed and relabelled."""
    out = shutil.copytree(root, tmp_path_factory.mktemp("edited") / "set")
    key = remove_clips(out, [load_manifest(out).keys()[0]]).keys()[0]
    relabel_clips(out, [{"key": key, "label": "new"}])
    return out


def tables() -> dict[str, dict[str, str]]:
    """The tables of the page by the heading or line before them: first column -> second."""
    found: dict[str, dict[str, str]] = {}
    title = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("#") or line.endswith(":"):
            title = line.strip("# :")
        elif match := re.match(r"\| `([^|]+)` \| ([^|]+) \|", line):
            found.setdefault(title, {})[match[1]] = match[2].strip(" `")
    return found


def members(root: Path) -> list[tuple[int, tarfile.TarInfo, bytes]]:
    """Shard number, header and content of every member of every shard, in order."""
    found = []
    for number, shard in enumerate(json.loads((root / "manifest.json").read_text())["shards"]):
        with tarfile.open(root / shard["name"]) as tar:
            found += [(number, member, tar.extractfile(member).read()) for member in tar]
    return found


def test_every_field_is_named_with_its_type(root):
    page, body = tables(), json.loads((root / "manifest.json").read_text())
    assert set(page["One JSON object with exactly these fields"]) == set(body)
    assert set(page["Each entry of `shards`"]) == set(body["shards"][0])
    assert f"schema **{SCHEMA}**" in PAGE.read_text()
    index = np.load(root / "index.npy")
    width = index.dtype["key"].itemsize
    dtypes = {
        name: index.dtype[name].str.replace("|u1", "u1").replace(f"|S{width}", "S<n>")
        for name in index.dtype.names
    }
    assert page["index.npy"] == dtypes
    assert list(page["index.npy"]) == list(index.dtype.names)
    for name, (_, offset) in list(index.dtype.fields.items())[1:]:
        where = f"n+{offset - width}" if offset > width else "n"
        row = rf"\| `{name}` \| `[^`]+` \| {re.escape(where)} \|"
        assert re.search(row, PAGE.read_text()), name
    assert f"A row takes n+{index.dtype.itemsize - width} bytes" in PAGE.read_text()
    metadata = json.loads(members(root)[2][2])
    assert set(page["KEY.json"]) == set(metadata)
    for name in ("sampling", "resize"):
        assert all(f"`{field}`" in PAGE.read_text() for field in body[name])


def test_every_field_of_a_changed_set_is_named(root, edited):
    page = tables()["Fields of a changed set"]
    body, before = (json.loads((path / "manifest.json").read_text()) for path in (edited, root))
    fields = body.keys() - before.keys()
    fields |= set().union(*map(set, body["shards"])) - set(before["shards"][0])
    assert fields == set(page)
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for edit in body["edits"] for name in edit)
    assert (edited / body["index_file"]).is_file()
    assert not (edited / "index.npy").exists()
    assert (edited / "classes.txt").read_text().splitlines() == body["classes"]


def test_a_reader_of_tarfile_json_and_numpy_gives_what_the_library_gives(root):
    body, index = json.loads((root / "manifest.json").read_text()), np.load(root / "index.npy")
    manifest = load_manifest(root)
    reader, row = ClipReader(manifest), 0
    assert hashlib.sha256((root / "index.npy").read_bytes()).hexdigest() == body["index_sha256"]
    entries = members(root)
    for (number, npy, array), (_, cls, label), (_, about, text) in zip(
        entries[::3], entries[1::3], entries[2::3], strict=True
    ):
        pixels, metadata = np.load(io.BytesIO(array)), json.loads(text)
        key = npy.name.removesuffix(".npy")
        assert [cls.name, about.name] == [f"{key}.cls", f"{key}.json"]
        assert list(pixels.shape) == body["clip_shape"]
        assert np.array_equal(pixels, reader.read(row))
        fields = index[row]
        assert (fields["key"].decode(), fields["shard"]) == (key, number)
        assert fields["label"] == int(label)
        assert body["classes"][fields["label"]] == metadata["class"]
        assert body["groups"][fields["group"]] == metadata["group"]
        assert (fields["view"], fields["decoded"], fields["padded"]) == (
            metadata["view"], metadata["frames_decoded"], metadata["padded"],
        )  # fmt: skip
        raw = (root / body["shards"][number]["name"]).read_bytes()
        assert raw[fields["offset"] : fields["offset"] + pixels.size] == pixels.tobytes()
        assert (fields["offset"] - npy.offset_data) % 64 == 0
        assert xxhash.xxh3_64_intdigest(pixels.tobytes()) == fields["xxh3"]
        checksum = metadata.pop("xxh3")
        rest = json.dumps(metadata, sort_keys=True).encode()
        assert xxhash.xxh3_64_hexdigest(rest) == checksum
        row += 1
    assert row == len(index) == sum(shard["samples"] for shard in body["shards"])
    for shard in body["shards"]:
        raw = (root / shard["name"]).read_bytes()
        assert (len(raw), xxhash.xxh3_128_hexdigest(raw)) == (shard["bytes"], shard["xxh3"])
        assert raw.endswith(bytes(1024))
        assert raw[-1536:-1024].strip(b"\0")
    reader.close()


def test_the_reader_on_the_page_works(root, edited):
    for folder in (root, edited):
        check_reader_on_the_page(folder)


def check_reader_on_the_page(root):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    names: dict = {}
    exec(compile(code[1], "docs/format.md", "exec"), names)
    manifest = load_manifest(root)
    reader = ClipReader(manifest)
    for number in range(0, len(manifest.index), 7):
        key, name, pixels = names["read_clip"](root, number)
        assert key == manifest.keys()[number]
        assert name == manifest.classes[manifest.index["label"][number]]
        assert np.array_equal(pixels, reader.read(number))
