"""The commands as a user types them: text, exit codes, nothing lost."""

import csv
import json
import re
import shutil
from pathlib import Path

import made_videos
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from har.pipeline.build import load_rejects
from har.pipeline.cli import shards_main
from har.pipeline.inspect import describe_split
from har.shards.format import Journal, load_manifest, write_journal
from har.shards.splits import make_split
from har.shards.storage import open_folder


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(shards_main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """videos/ (2 classes x 3 groups), set/ built of it."""
    root = tmp_path_factory.mktemp("cli")
    for name in ("Punch", "YoYo"):
        for group in (1, 2, 3):
            path = root / "videos" / name / f"v_{name}_g{group:02d}_c01.avi"
            made_videos.write(path, seed=group, frames=12)
    built = _run("build", root / "videos", "--out", root / "set", "--frames", 4, "--size", "24x32")
    assert built.exit_code == 0, built.output
    assert "6 clips of 6 videos in 6 shards" in built.output
    return root


def test_colons_in_names_are_no_protocols(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path, and a URL's scheme before the colon, would be the worst."""
    monkeypatch.chdir(tmp_path)
    source = next((folder / "videos").rglob("*.avi"))
    for name in ("2024-08-20T13:28:35Z", "http:b"):
        video = Path("videos:1", "Yo:Yo", f"{name}.avi")
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(source.read_bytes())
    built = _run("build", "videos:1", "--out", "set:1", "--frames", 4, "--size", "24x32")
    assert built.exit_code == 0, built.output
    assert "2 clips of 2 videos" in built.output


def test_info_says_what_a_set_is(folder: Path) -> None:
    said = _run("info", folder / "set")
    assert said.exit_code == 0
    for part in ("4 frames of 24x32x3", "frames 4, rule paper", "6 (ucf101)", "av ", "fold-I/K"):
        assert part in said.output
    split = _run("info", folder / "set", "--split", "grouped")
    assert "leak: 0.0% of the test clips" in split.output
    assert split.output.splitlines()[-2].split() == ["all", *["2", "33.3%"] * 3]
    assert _run("info", folder / "set", "--split", "csv").exit_code == 2
    unknown = _run("info", folder / "set", "--split", "mine")
    assert (unknown.exit_code, "grouped" in unknown.output) == (2, True)


def test_verify_names_the_fault_and_fails(folder: Path) -> None:
    for way in ("--quick", "--full"):
        assert _run("verify", folder / "set", way).exit_code == 0
    path = folder / "set" / "shard-000003.tar"
    raw = path.read_bytes()
    path.write_bytes(raw[:700] + bytes([raw[700] ^ 4]) + raw[701:])
    said = _run("verify", folder / "set")
    path.write_bytes(raw)
    assert said.exit_code == 1
    assert "shard-000003.tar, sample v_YoYo_g02_c01, byte 640: pixels do not match" in said.output


def test_preview_draws_classes_and_keys(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    assert _run("preview", folder / "set", "-o", out).exit_code == 0
    with Image.open(out) as picture:
        assert picture.size == (4 * (32 + 2), 6 * (24 + 14 + 2))
    assert _run("preview", folder / "set", "-o", out, "--class", "Y*", "--rows", 2).exit_code == 0
    with Image.open(out) as picture:
        assert picture.height == 2 * 40
    none = _run("preview", folder / "set", "-o", out, "--key", "nothing*")
    assert (none.exit_code, "keys are like" in none.output) == (2, True)
    bad = _run("preview", folder / "set", "-o", tmp_path / "sheet.nonsense")
    assert (bad.exit_code, "try a .png" in bad.output) == (2, True)


@pytest.mark.parametrize(("options", "num_classes"), [([], 6), (["--hard"], 12)])
def test_synthetic_writes_videos(tmp_path: Path, options: list[str], num_classes: int) -> None:
    said = _run("synthetic", tmp_path, "--groups", 1, "--clips", 1, *options)
    assert said.exit_code == 0
    assert f"{num_classes} videos of {num_classes} classes" in said.output
    assert len(list(tmp_path.rglob("v_*_g01_c01.avi"))) == num_classes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--size", "huge"], "height x width"),
        (["--frames", "0"], "--frames 0 is not in 1..1024"),
        (["--frames", "1024", "--size", "2160x3840"], "a clip may take 4 GiB at most"),
        (["--shard-size", "lots"], "64MB"),
        (["--clips", "3"], "needs '--sampling dense'"),
        (["--frames", "8"], "frames: 4 there, 8 now"),
        (["--group-regex", "x"], "finds no group"),
        (["--classes", "none.txt"], "none.txt cannot be read"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(
    folder: Path, options: list[str], says: str
) -> None:
    said = _run("build", folder / "videos", "--out", folder / "set", *options)
    assert said.exit_code == 2
    assert says in said.output
    assert said.output.startswith("Error: ")
    assert len(said.output.strip().splitlines()) == 1


def test_missing_videos_say_where_to_get_them_and_missing_sets_how_to_build(tmp_path: Path) -> None:
    said = _run("build", tmp_path / "UCF-101", "--out", tmp_path / "set")
    assert said.exit_code == 2
    assert "Center for Research in Computer Vision" in said.output
    assert not (tmp_path / "set").exists()
    for command in ("info", "verify", "preview"):
        said = _run(command, tmp_path / "set")
        assert (said.exit_code, "make shards" in said.output) == (2, True)


def test_a_set_changes_by_commands_and_says_what_became_of_it(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(folder / "set", root)
    clips = load_manifest(root)
    keys = tmp_path / "keys.csv"
    said = _run("info", root, "--split", "grouped", "--keys", keys)
    assert said.output.endswith(f"{keys}: {len(clips.index)} clips\n")
    words = keys.read_text().replace(",train,", ",Training,").replace(",val,", ",Validation,")
    keys.write_text(words)
    seeded = _run("info", root, "--split", "paper", "--split-seed", 3)  # as har-train calls it
    assert seeded.output == f"{describe_split(root, 'paper', 3)}\n"
    frozen = _run("relabel", root, keys)
    assert f"{root}: {len(clips.index)} clips relabelled; now " in frozen.output
    _run("info", root, "--split", "grouped", "--keys", tmp_path / "keys.json")
    assert _run("relabel", root, tmp_path / "keys.json").output == f"{root}: nothing to change.\n"
    assert describe_split(root, "csv").splitlines()[2:-1] == said.output.splitlines()[2:-2]
    (tmp_path / "list.txt").write_text("\ufeffv_YoYo_g02_*\n\n")
    removed = _run("remove", root, "--key", "v_Punch_g03_c0?", "--list", tmp_path / "list.txt")
    assert removed.exit_code == 0
    left = len(load_manifest(root).index)
    for text in (
        f"{root}: {len(clips.index) - left} clips removed; now {left} clips of {left} videos",
        "splits in which the clips that were there stay: ", "csv\n",
        f"removed: {len(clips.index) - left} clips still in ", "'har-shards compact",
    ):  # fmt: skip
        assert text in removed.output
    assert "frees about" in _run("verify", root).output
    assert "frees about" in _run("info", root).output
    juggling = "Juggling, with clubs"
    (tmp_path / "labels.csv").write_text(f"key;label\r\nv_YoYo_g03_c01;{juggling}\r\n", "utf-16")
    relabelled = _run("relabel", root, tmp_path / "labels.csv")
    assert f"new classes: {juggling}\nYoYo -> {juggling}: 1 clip\n" in relabelled.output
    compacted = _run("compact", root)
    assert f"{root}: the same clips in other shards; now {left} clips" in compacted.output
    assert _run("compact", root).output == f"{root}: nothing to change.\n"
    said = _run("info", root)
    assert "edits        remove: " in said.output
    assert "edits        compact: the same clips in other shards" in said.output
    assert "frees" not in said.output
    subset = _run("subset", root, "-o", tmp_path / "sub", "--classes", "YoYo", "--per-class", 2)
    assert f"{tmp_path / 'sub'}: 1 clips of 1 videos in 1 shards" in subset.output
    both = ("--classes", juggling, "--classes", "YoYo, Punch")
    subset = _run("subset", root, "-o", tmp_path / "all", *both)
    assert f"{left} clips of {left} videos" in subset.output
    assert _run("remove", root, "--key", "v_YoYo_g03_c01").exit_code == 0
    merged = _run("merge", tmp_path / "sub", root, "-o", tmp_path / "both", "--skip-existing")
    assert f"{tmp_path / 'both'}: {left - 1} clips of {left - 1} videos" in merged.output
    assert "left out: 1 clip with a key that is in both sets" in merged.output
    assert f"no clip: 1 of the 3 classes: {juggling}" in merged.output
    for name in ("set", "sub", "both"):
        assert _run("verify", tmp_path / name).exit_code == 0
    next(root.glob("*.tar")).unlink()
    said = _run("verify", root)
    assert said.exit_code == 1
    command = re.search("har-shards (subset .* --intact -o )NEW", said.output)
    assert command is not None
    assert _run(*command[1].split(), tmp_path / "saved").exit_code == 0
    assert _run("verify", tmp_path / "saved").exit_code == 0


def test_an_edit_that_did_not_end_is_said_and_no_fault(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "set", tmp_path / "set")
    write_journal(open_folder(tmp_path / "set"), Journal("add", 6))
    shutil.copy(tmp_path / "set" / "shard-000001.tar", tmp_path / "set" / "shard-000006.tar")
    for command in ("verify", "info"):
        said = _run(command, tmp_path / "set")
        assert (said.exit_code, "unfinished: 'har-shards add' runs" in said.output) == (0, True)


def test_add_says_what_was_added_and_left_out(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "set", tmp_path / "set")
    shutil.copytree(folder / "videos", tmp_path / "videos")
    made_videos.write(tmp_path / "videos" / "Wave" / "v_Wave_g01_c01.avi", frames=12)
    (tmp_path / "videos" / "Wave" / "v_Wave_g02_c01.avi").write_bytes(b"no video")
    refused = _run("add", tmp_path / "set", tmp_path / "videos")
    assert (refused.exit_code, "'--existing skip' leaves" in refused.output) == (2, True)
    said = _run("add", tmp_path / "set", tmp_path / "videos", "--existing", "skip")
    num_old = len(load_manifest(folder / "set").index)
    for text in (
        f"{tmp_path / 'set'}: 1 clip added; now {num_old + 1} clips", "new classes: Wave",
        "splits in which the clips that were there stay: grouped, official-2", "left out: ",
        "not in the set: Wave/v_Wave_g02_c01.avi: ",
    ):  # fmt: skip
        assert text in said.output, said.output
    again = _run("add", tmp_path / "set", tmp_path / "videos", "--existing", "skip")
    assert again.exit_code == 0  # a reject of the set is no fault of the next `add`
    assert "nothing to change" in again.output
    assert "not in the set: Wave/v_Wave_g02_c01.avi: " in again.output
    assert load_rejects(tmp_path / "set")[0]["key"] == "v_Wave_g02_c01"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["remove", "SET"], "name the clips with --key or --list"),
        (["remove", "SET", "--key", "none"], "has the key 'none': keys are like"),
        (["remove", "SET", "--list", "none.txt"], "the list none.txt cannot be read (No such file"),
        (["remove", "SET", "--list", "EMPTY"], "has the columns none: it needs key"),
        (["relabel", "SET", "EMPTY"], "has the columns none: it needs key"),
        (
            ["relabel", "SET", "BAD"],
            ", line 3: key must not be empty and split 'no' must be one of",
        ),
        (["relabel", "SET", "TWICE"], "has two columns 'label'"),
        (["relabel", "SET", "LONG"], "line 2: it has 3 fields and the header 2"),
        (["relabel", "SET", "JSON"], "is no JSON list of objects with key"),
        (["relabel", "SET", "KEYS"], "changes nothing: it needs key and one of label, group"),
        (["subset", "SET", "-o", "OUT"], "say which clips with --classes, --per-class, --list or"),
        (["subset", "SET", "-o", "SET/..", "--per-class", "1"], "is not empty ("),
        (["merge", "SET", "SET", "-o", "OUT"], "cannot be merged with itself"),
        (["info", "SET", "--keys", "k.csv"], "name it with --split"),
        (["info", "SET", "--split", "grouped", "--keys", "k.txt"], "must end in .csv or .json"),
        (["add", "SET", "nowhere"], "there are no videos at"),
        (["compact", "nowhere"], "there is no shard set at nowhere"),
    ],
)
def test_mistakes_about_finished_sets_are_one_sentence(
    folder: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    lists = {"EMPTY": "\n", "BAD": "key,split\n\n,no\n", "KEYS": "key\nv_YoYo_g01_c01\n"}
    lists |= {"TWICE": "key,label,label\nx,a,b\n", "LONG": "key,label\nx,a,b\n"}
    for name, text in lists.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "x.json").write_text("[3]")
    places = {name: tmp_path / f"{name}.csv" for name in lists} | {"JSON": tmp_path / "x.json"}
    places |= {"SET": folder / "set", "SET/..": folder, "OUT": tmp_path / "out"}
    before = load_manifest(folder / "set").digest
    said = _run(*(places.get(word, word) for word in words))
    assert (said.exit_code, says in said.output) == (2, True), said.output
    assert len(said.output.strip().splitlines()) == 1
    assert load_manifest(folder / "set").digest == before


def test_keys_of_a_split_are_written_for_other_tools(folder: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "json"):
        path = tmp_path / f"keys.{suffix}"
        assert _run("info", folder / "set", "--split", "grouped", "--keys", path).exit_code == 0
    with open(tmp_path / "keys.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    clips = json.loads((tmp_path / "keys.json").read_text())
    assert [{name: str(value) for name, value in clip.items()} for clip in clips] == rows
    assert list(rows[0]) == ["key", "subset", "label", "class", "group"]
    manifest = load_manifest(folder / "set")
    split = make_split(manifest, "grouped")
    for name in ("train", "val", "test"):
        keys = [row["key"] for row in rows if row["subset"] == name]
        assert keys == manifest.keys(split.subset(name))
    assert clips[0] == {
        "key": "v_Punch_g01_c01", "subset": "train", "label": 0, "class": "Punch",
        "group": "Punch/g01",
    }  # fmt: skip
    assert (folder / "set" / "classes.txt").read_text() == "Punch\nYoYo\n"
