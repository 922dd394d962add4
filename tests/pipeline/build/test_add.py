"""Videos added to a finished set: the old shards untouched, the new ones as a build makes them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import killed_edits
import made_videos
import numpy as np
import pytest
from edited_sets import check_set, clips_of, stock_clips
from made_builds import QUIET, SIZE, build, tree_bytes

from har.errors import HarError
from har.pipeline.build import Added, AddOptions, BuildError, RunOptions, add_videos, load_rejects
from har.pipeline.dataset import find_videos, load_notes, note_lines
from har.pipeline.decode import decode_clip
from har.shards.edit import EditError, remove_clips
from har.shards.format import load_manifest


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """first: Punch, YoYo with g01, g02. more: yoyo with g03, g04, and a new class Wave."""
    root = tmp_path_factory.mktemp("add")
    first = made_videos.tree(root / "first", groups=2, clips=1)
    build(first, root / "set")
    for group in (3, 4):
        made_videos.write(
            root / "more" / "yoyo" / f"v_YoYo_g{group:02d}_c01.avi", frames=12, seed=group
        )
    made_videos.write(root / "more" / "Wave" / "v_Wave_g01_c01.avi", frames=12, seed=9)
    return {name: root / name for name in ("first", "set", "more")}


@pytest.fixture
def root(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the set."""
    return Path(shutil.copytree(folders["set"], tmp_path / "set"))


def add(root: Path | str, videos: Path, existing: str = "refuse", **options: object) -> Added:
    return add_videos(
        root,
        lambda: find_videos(videos, **options),
        add_options=AddOptions(existing, merge_case=True),
        run_options=QUIET,
    )


def test_new_videos_come_beside_the_old_ones(folders: dict[str, Path], root: Path) -> None:
    before, files = load_manifest(root), tree_bytes(root)
    added = add(root, folders["more"]).after
    clips = check_set(added)
    assert clips == stock_clips(added)
    assert {name: raw for name, raw in tree_bytes(root).items() if name in files} == {
        **{name: raw for name, raw in files.items() if name.endswith(".tar")},
        "rejects.jsonl": b"",
        "manifest.json": (root / "manifest.json").read_bytes(),
        "classes.txt": b"Punch\nYoYo\nWave\n",
    }
    assert added.classes == (*before.classes, "Wave")
    assert added.groups == (*before.groups, "Wave/g01", "YoYo/g03", "YoYo/g04")
    assert (added.grouping, added.rejects, added.edits[-1].added) == ("ucf101", 0, 3)
    assert added.shards[: len(before.shards)] == before.shards
    assert [shard.name for shard in added.shards[len(before.shards) :]] == ["shard-000004.tar"]
    assert np.array_equal(added.index["video"], range(7))
    for key, path in (
        ("v_YoYo_g03_c01", "yoyo/v_YoYo_g03_c01.avi"), ("v_Wave_g01_c01", "Wave/v_Wave_g01_c01.avi")
    ):  # fmt: skip
        clip = decode_clip(folders["more"] / path, frames=4, size=SIZE)
        assert clips[key][2] == clip.pixels.tobytes()
    assert clips["v_YoYo_g03_c01"][:2] == ("YoYo", "YoYo/g03")


def test_keys_that_are_there_are_refused_left_out_or_renamed(
    folders: dict[str, Path], root: Path
) -> None:
    made_videos.write(folders["first"] / "Punch" / "v_Punch_g09_c01.avi", frames=12, seed=90)
    try:
        with pytest.raises(EditError, match="4 of the 5 videos have keys that are in"):
            add(root, folders["first"])
        skipped = add(root, folders["first"], "skip")
        assert (skipped.num_skipped, skipped.after.edits[-1].added) == (4, 1)
        before = clips_of(load_manifest(root))
        remove_clips(root, ["v_YoYo_g01_c01"])
        assert check_set(add(root, folders["first"], "skip").after) == before  # from a new shard
        again = add(root, folders["first"], "skip")
        assert (again.num_skipped, again.after.digest) == (5, again.before.digest)
        renamed = add(root, folders["first"], "rename")
        assert (renamed.num_renamed, renamed.after.edits[-1].added) == (5, 5)
        clips = check_set(renamed.after)
        digest = hashlib.sha256(b"YoYo/v_YoYo_g01_c01.avi").hexdigest()[:8]
        assert clips["v_YoYo_g01_c01"] == clips[f"v_YoYo_g01_c01-{digest}"]
        with pytest.raises(EditError, match=r"is in .* already, as v_Punch_g01_c01-"):
            add(root, folders["first"], "rename")
    finally:
        (folders["first"] / "Punch" / "v_Punch_g09_c01.avi").unlink()


def test_a_video_whose_key_gets_a_hash_by_a_new_namesake_is_known_again(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("a", "b"):
        made_videos.write(videos / name / f"{name}.avi", frames=6)
    build(videos, tmp_path / "set")
    made_videos.write(videos / "b" / "A.avi", frames=6, seed=1)  # now both keys get a hash
    added = add(tmp_path / "set", videos, "skip")
    assert (added.num_skipped, len(added.after.index)) == (2, 3)
    assert len({pixels for _, _, pixels in check_set(added.after).values()}) == 2  # a.avi is b.avi


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"grouping": None, "sampling": {"rule": "by_ear"}}, "unknown sampling 'by_ear'"),
        (
            {"sampling": {"rule": "paper", "frames": 4, "pace": 5}},
            "a rule that this version does not",
        ),
        ({"resize": {"rule": "nearest"}}, "this version makes other clips"),
    ],
)
def test_clips_that_cannot_be_made_alike_are_refused(
    folders: dict[str, Path], root: Path, change: dict, says: str
) -> None:
    path = root / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(HarError, match=says):
        add(root, folders["more"])


def test_groups_must_be_known_where_the_set_has_some(
    folders: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    made_videos.write(tmp_path / "plain" / "Punch" / "one.avi", frames=6)
    with pytest.raises(EditError, match=r"has groups \(ucf101\) and the new videos have none"):
        add(root, tmp_path / "plain")
    added = add(root, tmp_path / "plain", group_regex="(.+)").after
    assert (added.grouping, added.groups[-1]) == ("mixed", "Punch/one.avi")
    made_videos.write(tmp_path / "other" / "Punch" / "two.avi", frames=6)
    build(tmp_path / "other", tmp_path / "ungrouped")
    without = add(tmp_path / "ungrouped", folders["more"])
    assert (without.after.grouping, without.after.groups) == (None, ())
    text = "note: the groups of 3 added videos are left out: the set has none"
    assert text in note_lines(without.notes)
    assert text in note_lines(load_notes(tmp_path / "ungrouped"))
    check_set(without.after)


def test_rejects_are_counted_and_a_mended_video_is_none(
    folders: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    video = tmp_path / "new" / "YoYo" / "v_YoYo_g07_c01.avi"
    made_videos.write(tmp_path / "new" / "YoYo" / "v_YoYo_g08_c01.avi", frames=12)
    video.write_bytes(b"no video")
    with pytest.raises(BuildError, match="1 of 2 videos give no clip"):
        add_videos(
            root, lambda: find_videos(tmp_path / "new"), run_options=RunOptions(1, 9, 0, quiet=True)
        )
    assert len(load_manifest(root).index) == 4
    made_videos.write(video, frames=12, seed=7)  # the same command looks at it again
    copied = shutil.copytree(root, tmp_path / "copy")
    assert len(add(copied, tmp_path / "new").after.index) == 6
    video.write_bytes(b"no video")
    added = add(root, tmp_path / "new")
    assert ([row["key"] for row in added.rejects], added.after.rejects) == (["v_YoYo_g07_c01"], 1)
    assert [row["key"] for row in load_rejects(root)] == ["v_YoYo_g07_c01"]
    made_videos.write(video, frames=12, seed=7)
    mended = add(root, tmp_path / "new", "skip")
    assert (mended.after.rejects, load_rejects(root), mended.num_skipped) == (0, [], 1)
    check_set(mended.after)


def test_an_interrupted_add_goes_on_and_another_edit_removes_what_it_made(
    folders: dict[str, Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_manifest(root)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("har.pipeline.build.add.check_rejects", stop)
        with pytest.raises(KeyboardInterrupt):
            add(root, folders["more"])
    assert load_manifest(root).digest == before.digest
    new = root / "shard-000004.tar"
    written = new.stat().st_mtime_ns
    copied = shutil.copytree(root, tmp_path / "copy")
    clips = check_set(add(root, folders["more"]).after)
    assert (new.stat().st_mtime_ns, len(clips)) == (written, 7)
    check_set(remove_clips(copied, ["v_YoYo_g01_c01"]))  # nothing of the other edit is left


def test_a_build_does_not_touch_a_set_that_was_changed(
    folders: dict[str, Path], root: Path
) -> None:
    remove_clips(root, ["v_YoYo_g01_c01"])
    with pytest.raises(BuildError, match=r"was changed since it was built \(remove\)"):
        build(folders["first"], root)


def test_add_to_a_url(folders: dict[str, Path], root: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store, url = fsspec.filesystem("memory"), f"memory://{tmp_path.name}/set"
    store.put(f"{root}/", f"/{tmp_path.name}/set/", recursive=True)
    added = add(url, folders["more"]).after
    local = add(root, folders["more"]).after
    assert added.digest == local.digest
    assert clips_of(added) == clips_of(local)
    names = {path.rsplit("/", 1)[-1] for path in store.ls(f"/{tmp_path.name}/set", detail=False)}
    assert names == {path.name for path in root.iterdir()}


@pytest.mark.slow
def test_a_killed_add_leaves_the_old_set_or_the_new_one(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """At 10 of the moments at which it changes files."""
    shutil.copytree(folders["set"], tmp_path / "pristine" / "set")
    shutil.copytree(folders["set"], tmp_path / "pristine" / "other")
    videos = tmp_path / "pristine" / "videos"
    shutil.copytree(folders["first"], videos)
    shutil.copytree(folders["more"] / "Wave", videos / "Wave")
    assert "10 of " in killed_edits.check("add", tmp_path, 10)
