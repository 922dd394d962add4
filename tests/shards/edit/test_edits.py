"""Edits of finished sets: what is there afterwards, read in every way, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edited_sets import check_set, clips_of, stock_clips
from made_tars import flip_bit, make_tars

from har.shards.edit import (
    EditError,
    compact_set,
    count_moved_clips,
    merge_sets,
    relabel_clips,
    remove_clips,
    subset_set,
)
from har.shards.format import (
    BUILD,
    Journal,
    Manifest,
    ShardSetError,
    load_manifest,
    save_manifest,
    verify_full,
    verify_quick,
    write_journal,
)
from har.shards.storage import LocalFolder, open_folder

SHAPE = (2, 6, 8, 3)


@pytest.fixture
def made(tmp_path: Path) -> Manifest:
    """12 clips of 3 classes and 6 groups in 3 shards."""
    return make_tars(tmp_path / "set", 3, 12, SHAPE)


def shard_bytes(manifest: Manifest) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in manifest.root.glob("*.tar")}


def test_removed_clips_are_gone_for_readers_and_stay_in_the_shards(made: Manifest) -> None:
    clips, shards = clips_of(made), shard_bytes(made)
    removed = remove_clips(made.root, ["v_c000_g00_c00", "v_c001_*"])
    assert check_set(removed) == {k: v for k, v in clips.items() if k not in REMOVED}
    assert shard_bytes(removed) == shards
    assert stock_clips(removed) == clips  # a reader of the tars alone does not know
    assert removed.digest != made.digest
    assert removed.classes == made.classes
    assert removed.groups == ("c000/g00", "c000/g01", "c002/g04", "c002/g05")
    assert [shard.removed for shard in removed.shards] == [1, 4, 0]
    body = json.loads((made.root / "manifest.json").read_text())
    assert "removed" not in body["shards"][2]
    assert body["edits"] == [
        {"command": "remove", "digest": made.digest, "added": 0, "removed": 5, "relabelled": 0}
    ]


REMOVED = {"v_c000_g00_c00", *(f"v_c001_g{g:02d}_c{c:02d}" for g in (2, 3) for c in (0, 1))}


def test_compact_gives_the_same_clips_without_the_removed_ones(made: Manifest) -> None:
    removed = remove_clips(made.root, sorted(REMOVED))
    clips = check_set(removed)
    calls: list[None] = []
    compacted = compact_set(made.root, lambda: calls.append(None))
    assert check_set(compacted) == stock_clips(compacted) == clips
    assert compacted.keys() == removed.keys()
    assert [shard.name for shard in compacted.shards] == ["shard-000003.tar", "shard-000002.tar"]
    assert len(calls) == 3
    assert compacted.shards[1] == made.shards[2]
    sizes = [sum(shard.bytes for shard in m.shards) for m in (removed, compacted)]
    assert sizes[0] - removed.removed_bytes == pytest.approx(sizes[1], rel=0.1)
    assert compact_set(made.root).digest == compacted.digest  # nothing is left to do


def test_a_compacted_shard_is_as_if_it_was_built_so(tmp_path: Path, made: Manifest) -> None:
    remove_clips(made.root, made.keys(slice(8, 12)))
    compact_set(made.root)
    built = make_tars(tmp_path / "built", 2, 8, SHAPE)
    assert list(shard_bytes(load_manifest(made.root)).values()) == list(shard_bytes(built).values())


def test_relabelled_clips_are_as_the_index_says_and_compact_writes_it(made: Manifest) -> None:
    shards, before = shard_bytes(made), clips_of(made)
    rows = [
        {"key": "v_c000_g00_c00", "label": "c002"},
        {"key": "v_c000_g00_c01", "label": "new", "group": "extra", "split": "test"},
        {"key": "v_c001_g02_*", "label": "", "group": "", "split": "val"},
    ]
    changed = relabel_clips(made.root, rows)
    expected = dict(before)
    for key, label, group in (
        ("v_c000_g00_c00", "c002", "c000/g00"), ("v_c000_g00_c01", "new", "extra")
    ):  # fmt: skip
        expected[key] = (label, group, before[key][2])
    assert check_set(changed) == expected
    assert shard_bytes(changed) == shards
    assert stock_clips(changed) == before
    assert changed.classes == (*made.classes, "new")
    assert changed.grouping == "mixed"
    assert changed.edits[-1].relabelled == 4
    sides = dict(zip(changed.keys(), changed.index["side"].tolist(), strict=True))
    assert {key: side for key, side in sides.items() if side} == {
        "v_c000_g00_c01": 3, "v_c001_g02_c00": 2, "v_c001_g02_c01": 2
    }  # fmt: skip
    assert [shard.relabelled for shard in changed.shards] == [True, False, False]
    assert relabel_clips(made.root, rows) == changed  # again: nothing to change
    compacted = compact_set(made.root)
    assert check_set(compacted) == stock_clips(compacted) == expected
    assert [shard.name for shard in compacted.shards][1:] == [
        "shard-000001.tar",
        "shard-000002.tar",
    ]


def test_views_of_a_video_are_edited_together(made: Manifest, tmp_path: Path) -> None:
    index = made.index.copy()
    index["key"][:3] = [b"v", b"v@1", b"v@2"]
    copy = tmp_path / "views"
    shutil.copytree(made.root, copy)
    save_manifest(replace(made, index=index), copy)
    assert remove_clips(copy, ["v@1"]).keys()[:2] == ["v", "v@2"]
    assert not {"v", "v@2"} & set(remove_clips(copy, ["v"]).keys())


def test_any_bit_of_an_edited_shard_is_found(made: Manifest) -> None:
    relabel_clips(made.root, [{"key": "v_c000_g00_c01", "label": "c002"}])
    edited = remove_clips(made.root, ["v_c000_g00_c00", "v_c000_g01_c01"])
    path = edited.shard_path(0)
    for offset in range(0, path.stat().st_size, 61):
        flip_bit(path, offset)
        assert verify_full(edited, workers=1), offset
        flip_bit(path, offset)
    assert verify_full(edited, workers=1) == []
    label = int(edited.index["offset"][0]) + 512 * ((edited.clip_bytes + 511) // 512) + 512 - 128
    start = label // 512 * 512
    flip_bit(path, start)
    assert verify_full(edited, workers=1)[0].key == "v_c000_g00_c01"


def test_a_wrong_number_of_removed_clips_is_a_fault(made: Manifest) -> None:
    edited = remove_clips(made.root, ["v_c000_g00_c00"])
    for number in (0, 2):
        shards = (replace(edited.shards[0], removed=number), *edited.shards[1:])
        assert verify_full(replace(edited, shards=shards), workers=1)


def test_merged_sets_hold_the_clips_of_both(made: Manifest, tmp_path: Path) -> None:
    other = make_tars(tmp_path / "other", 2, 8, SHAPE, first=8)  # c002, c003
    other = remove_clips(other.root, ["v_c002_*"])
    other = relabel_clips(other.root, [{"key": "v_c003_g06_c00", "label": "c000"}])
    merged = merge_sets(made.root, other.root, tmp_path / "merged")
    assert check_set(merged) == stock_clips(merged) == clips_of(made) | clips_of(other)
    assert merged.classes == (*made.classes, "c003")
    assert merged.keys() == made.keys() + other.keys()
    assert len(np.unique(merged.index["video"])) == 16
    for number, shard in enumerate(made.shards):  # linked, not copied
        assert merged.shard_path(number).samefile(made.shard_path(number))
        assert merged.shards[number].xxh3 == shard.xxh3
    changes = merged.changes_since(made.digest)
    assert changes is not None
    assert (changes.command, changes.added) == ("merge", 4)
    (tmp_path / "merged" / "manifest.json").unlink()
    with pytest.raises(EditError, match=r"is not empty \("):
        merge_sets(made.root, other.root, tmp_path / "merged")


def test_shards_are_copied_and_compared_where_links_do_not_work(
    made: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    other = make_tars(tmp_path / "other", 1, 4, SHAPE, first=12)
    merged = merge_sets(made.root, other.root, tmp_path / "merged")
    assert check_set(merged) == clips_of(made) | clips_of(other)
    assert not merged.shard_path(0).samefile(made.shard_path(0))
    flip_bit(made.shard_path(1), 1000)
    with pytest.raises(EditError, match="does not have the checksum of its manifest"):
        merge_sets(made.root, other.root, tmp_path / "again")
    with pytest.raises(ShardSetError, match=r"'har-shards merge' to .* did not end"):
        load_manifest(tmp_path / "again")
    flip_bit(made.shard_path(1), 1000)
    assert merge_sets(made.root, other.root, tmp_path / "again").digest == merged.digest


@pytest.mark.parametrize(
    ("rule", "names", "grouping"),
    [
        ("unite", ["c000/g00", "c000/g01", "c001/g02"], "regex"),
        ("apart", ["c000/g00", "c000/g01", "c000/g01+2", "c001/g02"], "regex"),
        ("none", [], None),
    ],
)
def test_groups_of_one_name_are_united_or_kept_apart(
    tmp_path: Path, rule: str, names: list[str], grouping: str | None
) -> None:
    full = make_tars(tmp_path / "full", 1, 6, SHAPE)  # groups of two: g00, g01, g02
    a = subset_set(full.root, tmp_path / "a", keys=["v_c000_g00_*", "v_c000_g01_c00"])
    b = subset_set(full.root, tmp_path / "b", keys=["v_c000_g01_c01", "v_c001_g02_*"])
    merged = merge_sets(a.root, b.root, tmp_path / "merged", groups=rule)
    check_set(merged)
    assert sorted(merged.groups) == names
    assert merged.grouping == grouping


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sampling": {"rule": "uniform"}}, "sampling rule paper and uniform"),
        ({"resize": {"fit": "crop"}}, "resize fit None and crop"),
        ({"clip_shape": (1, 6, 8, 3)}, r"clip shape \(2, 6, 8, 3\) and \(1, 6, 8, 3\)"),
        ({"grouping": None, "groups": ()}, "has groups and .* has none"),
    ],
)
def test_unlike_sets_are_not_merged(
    made: Manifest, tmp_path: Path, change: dict, says: str
) -> None:
    other = make_tars(tmp_path / "other", 1, 4, SHAPE, first=12)
    index = other.index.copy()
    if "groups" in change:
        index["group"] = -1
    save_manifest(replace(other, index=index, **change), other.root)
    with pytest.raises(EditError, match=says):
        merge_sets(made.root, other.root, tmp_path / "merged")


def test_keys_of_both_sets_are_refused_or_left_out(made: Manifest, tmp_path: Path) -> None:
    other = make_tars(tmp_path / "other", 1, 8, SHAPE, first=8)
    with pytest.raises(EditError, match=r"4 clips of .* have keys .* \(first v_c002_g04_c00\)"):
        merge_sets(made.root, other.root, tmp_path / "merged")
    merged = merge_sets(made.root, other.root, tmp_path / "merged", skip_existing=True)
    assert check_set(merged) == clips_of(made) | clips_of(other)
    with pytest.raises(EditError, match="is a shard set already"):
        merge_sets(made.root, other.root, tmp_path / "merged", skip_existing=True)
    with pytest.raises(EditError, match="with itself"):
        merge_sets(made.root, made.root, tmp_path / "twice")


def test_a_subset_has_the_classes_and_videos_asked_for(made: Manifest, tmp_path: Path) -> None:
    clips = clips_of(made)
    by_class = subset_set(made.root, tmp_path / "classes", classes=["c002", "c001"])
    assert check_set(by_class) == stock_clips(by_class)
    assert check_set(by_class) == {k: v for k, v in clips.items() if v[0] != "c000"}
    assert by_class.classes == ("c001", "c002")
    few = subset_set(made.root, tmp_path / "few", per_class=2)
    assert check_set(few).keys() == {k for k in clips if k.endswith("c00")}  # one of each group
    assert len(few.shards) == 2  # of the size of the old ones
    both = subset_set(made.root, tmp_path / "both", classes=["c000"], per_class=1)
    assert (both.keys(), both.classes, both.groups) == (
        ["v_c000_g00_c00"],
        ("c000",),
        ("c000/g00",),
    )
    changes = both.changes_since(made.digest)
    assert changes is not None
    assert changes.removed == 11


def test_what_is_whole_of_a_damaged_set_is_saved(made: Manifest, tmp_path: Path) -> None:
    clips, offsets = clips_of(made), made.index["offset"].tolist()
    made.shard_path(0).unlink()
    flip_bit(made.shard_path(1), offsets[5] + 3)  # pixels
    flip_bit(made.shard_path(1), offsets[6] - 200)  # a header, which no reader looks at
    end = -(-(offsets[9] + made.clip_bytes) // 512) * 512
    flip_bit(made.shard_path(2), end + 3 * 512 + 5)  # KEY.json, behind the label and its own header
    saved = subset_set(made.root, tmp_path / "saved", intact=True)
    lost = {*made.keys(slice(0, 4)), *made.keys(np.array([5, 9]))}
    assert check_set(saved) == {key: clip for key, clip in clips.items() if key not in lost}


def cannot(edit: Callable[[Path], object], root: Path) -> str:
    with pytest.raises(EditError) as caught:
        edit(root)
    return str(caught.value)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda root: remove_clips(root, ["v_c000_g00_c00", "x", "y*"]), "'x' and 1 more"),
        (lambda root: remove_clips(root, ["*"]), "nothing would be left"),
        (lambda root: relabel_clips(root, [{"key": "x", "label": "a"}]), "has the key 'x'"),
        (
            lambda root: relabel_clips(
                root, [{"key": "*", "label": "a"}, {"key": "*_c00", "label": "b"}]
            ),
            "v_c000_g00_c00 is named more than once",
        ),
        (
            lambda root: relabel_clips(root, [{"key": "*", "label": "C000"}]),
            "the classes 'c000' and 'C000' differ by case alone: add --merge-case",
        ),
        (lambda root: subset_set(root, root.parent / "sub", classes=["c9"]), "no class 'c9'"),
        (lambda root: subset_set(root, root, classes=["c000"]), "is a shard set already"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    made: Manifest, edit: Callable[[Path], object], says: str
) -> None:
    assert says in cannot(edit, made.root)
    assert check_set(made)


def test_one_edit_at_a_time(made: Manifest) -> None:
    with LocalFolder(made.root).locked():
        says = cannot(lambda root: remove_clips(root, ["*"]), made.root)
    assert "another command is writing" in says


def test_a_missing_shard_stops_an_edit(made: Manifest) -> None:
    made.shard_path(1).unlink()
    says = cannot(lambda root: remove_clips(root, ["v_c000_g00_c00"]), made.root)
    assert "shard-000001.tar: is missing" in says
    assert load_manifest(made.root).digest == made.digest


def test_what_a_killed_edit_left_is_no_fault_and_goes(made: Manifest) -> None:
    folder = open_folder(made.root)
    write_journal(folder, Journal("compact", 3, ("shard-000000.tar",)))
    for name in (
        "shard-000003.tar",
        "index-0123456789abcdef.npy",
        ".shard-000004.tar.host-1-2.tmp",
    ):
        (made.root / name).write_bytes(b"left")
    (made.root / "mine.tar").write_bytes(b"a user's")
    assert [fault.shard for fault in verify_quick(made)] == ["mine.tar"]
    (made.root / "mine.tar").unlink()
    check_set(remove_clips(made.root, ["v_c000_g00_c00"]))
    assert not (made.root / BUILD).exists()


def test_a_set_edited_between_two_reads_is_read_again(
    made: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, edits = LocalFolder.read, [lambda: remove_clips(made.root, ["v_c000_g00_c00"])]

    def read_then_edit(folder: LocalFolder, name: str) -> bytes:
        raw = read(folder, name)
        if name == "manifest.json" and edits:
            edits.pop()()
        return raw

    monkeypatch.setattr(LocalFolder, "read", read_then_edit)
    assert len(load_manifest(made.root).index) == 11


def test_changes_since_are_counted_from_any_earlier_manifest(made: Manifest) -> None:
    first = remove_clips(made.root, ["v_c000_g00_c00"])
    relabel_clips(made.root, [{"key": "v_c000_g00_c01", "label": "c001"}])
    last = remove_clips(made.root, ["v_c000_g01_c00"])
    for digest, counts in ((made.digest, (0, 2, 1)), (first.digest, (0, 1, 1)), ("0" * 64, None)):
        changes = last.changes_since(digest)
        assert counts == (changes and (changes.added, changes.removed, changes.relabelled))


def test_clips_that_change_their_subset_are_counted(made: Manifest) -> None:
    assert count_moved_clips(made, made) == {"grouped": (0, 0), "paper": (0, 0)}
    after = remove_clips(made.root, ["v_c000_g00_*"])  # of two groups; the other one was test
    assert count_moved_clips(made, after)["grouped"] == (2, 2)


def test_a_set_behind_a_url_is_edited_too(
    made: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("HAR_CACHE", str(tmp_path / "cache"))
    store, url = fsspec.filesystem("memory"), f"memory://{tmp_path.name}/set"
    store.put(f"{made.root}/", f"/{tmp_path.name}/set/", recursive=True)
    remove_clips(url, ["v_c000_g00_c00"])
    relabel_clips(url, [{"key": "v_c001_g02_c00", "label": "c000"}])
    compacted = compact_set(url)
    assert verify_full(compacted) == []
    merged = merge_sets(url, make_tars(tmp_path / "b", 1, 4, SHAPE, 12).root, tmp_path / "merged")
    check_set(merged)
    assert len(merged.index) == 15
    names = {path.rsplit("/", 1)[-1] for path in store.ls(f"/{tmp_path.name}/set", detail=False)}
    assert names == {"manifest.json", "classes.txt", compacted.index_file} | {
        shard.name for shard in compacted.shards
    }
