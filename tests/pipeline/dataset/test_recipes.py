"""The recipes of docs/data.md, each on a tree of the shape that the data set has.

The commands are read from the page and run, on videos of a few frames under the names of the data
set; what the shard set then holds is compared.
"""

import re
import shlex
from pathlib import Path

import made_videos
import pytest
from click.testing import CliRunner
from made_trees import images, left_out, rows, touch
from PIL import Image

from har.pipeline.cli import shards_main
from har.pipeline.cli.video_options import take_find_options
from har.pipeline.dataset import Dataset, find_videos
from har.shards.format import SUBSETS, load_manifest

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
RECIPES = PAGE.partition("## Recipes")[2].partition("\n## ")[0]
CODE = re.findall(r"^```python\n(.*?)^```", RECIPES, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^har-shards build (.*)$", RECIPES, re.MULTILINE)
KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"
KEPT, PUSHED = "Holding something", "Pushing it away"  # classes of Something-Something
# The first words of the recipe -> ({video: "subset class group", "" = left out}, {list: text},
# where groups come from, classes). A video that ends in / is a folder of images.
SHAPES: dict[str, tuple[dict[str, str], dict[str, str], str | None, tuple[str, ...]]] = {
    "data/UCF-101 --out": (
        {
            "HandstandPushups/v_HandStandPushups_g01_c01.avi":
                "- HandstandPushups HandstandPushups/g01",
            "YoYo/v_YoYo_g08_c01.avi": "- YoYo YoYo/g08",
        },
        {},
        "ucf101",
        ("HandstandPushups", "YoYo"),
    ),
    "data/UCF50": (
        {"BaseballPitch/v_BaseballPitch_g25_c06.avi": "- BaseballPitch BaseballPitch/g25"},
        {},
        "ucf101",
        ("BaseballPitch",),
    ),
    "data/UCF-101 --list": (
        {
            "Punch/v_Punch_g01_c01.avi": "train Punch Punch/g01",
            "YoYo/v_YoYo_g02_c01.avi": "train YoYo YoYo/g02",
            "YoYo/v_YoYo_g08_c01.avi": "test YoYo YoYo/g08",
        },
        {
            "ucfTrainTestlist/trainlist02.txt":
                "Punch/v_Punch_g01_c01.avi 2\r\nYoYo/v_YoYo_g02_c01.avi 3\r\n",
            "ucfTrainTestlist/testlist02.txt": "YoYo/v_YoYo_g08_c01.avi\r\n",
            "ucfTrainTestlist/trainlist01.txt": "YoYo/v_YoYo_g08_c01.avi 3\r\n",
            "ucfTrainTestlist/classInd.txt": "1 Archery\r\n2 Punch\r\n3 YoYo\r\n",
        },
        "ucf101",
        ("Archery", "Punch", "YoYo"),
    ),
    "data/UCF11_updated_mpg": (
        {
            "basketball/v_shooting_01/v_shooting_01_01.mpg": "- basketball v_shooting_01",
            "walking/v_walk_dog_12/v_walk_dog_12_03.mpg": "- walking v_walk_dog_12",
        },
        {},
        "folder",
        ("basketball", "walking"),
    ),
    "data/hmdb51": (
        {
            "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi": "train brush_hair April_09",
            "brush_hair/My_;_(2)!_brush_hair_u_nm_np1_fr_med_1.avi": "test brush_hair My_;_(2)!",
            "wave/wave/April_09_wave_u_nm_np1_ba_goo_0.avi": "- wave April_09",
        },
        {
            "splits/brush_hair_test_split1.txt": "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \n"
            "My_;_(2)!_brush_hair_u_nm_np1_fr_med_1.avi 2 \n",
            "splits/wave_test_split1.txt": "April_09_wave_u_nm_np1_ba_goo_0.avi 0 \n",
            "splits/wave_test_split2.txt": "April_09_wave_u_nm_np1_ba_goo_0.avi 2 \n",
        },
        "regex",
        ("brush_hair", "wave"),
    ),
    "data/k700": (
        {
            "train/abseiling/0wR5jVB-WPk_000417_000427.mp4": "train abseiling 0wR5jVB-WPk",
            "validate/air drumming/-2EU_hPcOqw_000010_000020.mp4": "val air drumming -2EU_hPcOqw",
            "test/-abcdefghij_000001_000011.mp4": "",
        },
        {},
        "regex",
        ("abseiling", "air drumming"),
    ),
    "data/k400": (
        {
            "train/0wR5jVB-WPk_000417_000427.mp4": "train abseiling 0wR5jVB-WPk",
            "val/-2EU_hPcOqw.mp4": "val air drumming -2EU_hPcOqw",
            "val/another1234_000001_000011.mp4": "",
        },
        {
            "annotations/train.csv": f"{KINETICS}abseiling,0wR5jVB-WPk,417,427,train,0\n"
            "abseiling,gone1234567,1,11,train,0\n",
            "annotations/val.csv": f'{KINETICS}"air drumming",-2EU_hPcOqw,10,20,val,0\n',
        },
        "csv",
        ("abseiling", "air drumming"),
    ),
    "data/20bn-something-something-v2": (
        {"78687.webm": f"train {KEPT} ", "42326.webm": f"val {PUSHED} "},
        {
            "labels/train.json": '[{"id": "78687", "label": "holding potato", "template": "Holding '
            '[something]", "placeholders": ["potato"]}]',
            "labels/validation.json": '[{"id": "42326", "template": "Pushing [it] [away]"}]',
            "labels/labels.json": f'{{"{PUSHED}": "0", "{KEPT}": "1", "Idle": "2"}}',
        },
        None,
        (PUSHED, KEPT, "Idle"),
    ),
    "data/20bn-jester-v1": (
        {"34870/": "train Swiping Left ", "9223/": "val No gesture "},
        {
            "jester-v1-train.csv": "34870;Swiping Left\n",
            "jester-v1-validation.csv": "9223;No gesture\n",
            "jester-v1-labels.csv": "Swiping Left\nSwiping Right\nNo gesture\n",
        },
        None,
        ("Swiping Left", "Swiping Right", "No gesture"),
    ),
    "data/nturgb+d_rgb": (
        {
            "S001C002P001R001A001_rgb.avi": "train A001 P001",
            "S017C003P003R002A060_rgb.avi": "test A060 P003",
        },
        {},
        "csv",
        ("A001", "A060"),
    ),
    "data/epic": (
        {
            "open/P01_01_0.mp4": "- open P01_01",
            "wash/P01_01_1.mp4": "- wash P01_01",
        },
        {},
        "regex",
        ("open", "wash"),
    ),
    "data/KTH": (
        {
            "boxing/person15_boxing_d4_uncomp.avi": "- boxing 15",
            "walking/person15_walking_d1_uncomp.avi": "- walking 15",
        },
        {},
        "regex",
        ("boxing", "walking"),
    ),
    "data/mine --layout": (
        {"run/anna/1.mp4": "- run anna", "walk/anna/2.mov": "- walk anna"},
        {},
        "folder",
        ("run", "walk"),
    ),
    "data/mine/list.csv": (
        {"1.mp4": "train Läufer anna", "b/2.mov": "test gehen "},
        {
            "mine/list.csv": "Path;Label;Group;Split\r\n1.mp4;Läufer;anna;Train\r\n\r\n"
            "b\\2.mov;gehen;;test\r\n"
        },
        "csv",
        ("Läufer", "gehen"),
    ),
}  # fmt: skip
# what is left out, by the first words of the recipe
LEFT_OUT = {
    "data/k700": {"test videos without a class folder, which have no label": 1},
    "data/k400": {
        "videos that a list names and that are not there": 1,
        "videos that no list names": 1,
    },
}


def _find(command: str) -> Dataset:
    words = shlex.split(command)
    build = shards_main.commands["build"]
    options = dict(build.make_context("build", words).params)
    return find_videos(options["videos"], **take_find_options(options))


@pytest.mark.parametrize("command", COMMANDS)
def test_recipe(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = next(start for start in SHAPES if command.startswith(start))
    videos, lists, grouping, classes = SHAPES[start]
    words = shlex.split(command)
    root = tmp_path / words[0].removesuffix("/list.csv")
    content = made_videos.write(tmp_path / "video.avi").read_bytes()
    for name in videos:
        if name.endswith("/"):
            for image in images(name[:-1]):
                touch(root, image)
                Image.new("RGB", (40, 30), "green").save(root / image)
        else:
            touch(root, name)
            (root / name).write_bytes(content)
    for name, text in lists.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("cp1252"))
    monkeypatch.chdir(tmp_path)
    for code in CODE:
        if words[0] in code:
            exec(code, {})
    data = _find(command)
    kept = {name: row for name, row in videos.items() if row}
    assert rows(data) == kept
    assert (data.grouping, data.classes) == (grouping, classes)
    counts = {reason: count for reason, (count, _) in left_out(data).items()}
    assert counts == LEFT_OUT.get(start, {})

    build = ["build", *words, "--frames", "2", "--size", "24x32", "--workers", "1"]
    result = CliRunner().invoke(shards_main, build)
    assert result.exit_code == 0, result.output
    manifest = load_manifest(words[words.index("--out") + 1])
    index = manifest.index
    groups = ("", *manifest.groups)
    built = [
        f"{SUBSETS[row['side']] or '-'} {manifest.classes[row['label']]} {groups[row['group'] + 1]}"
        for row in index
    ]
    assert sorted(built) == sorted(kept.values())
    assert (manifest.grouping, manifest.classes, manifest.rejects) == (grouping, classes, 0)


@pytest.mark.real
@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_lists_of_ucf101_give_its_official_splits(real_clips: Path, number: int) -> None:
    lists = real_clips / "ucfTrainTestlist" / f"t*list0{number}.txt"
    data = find_videos(real_clips / "ucf101", lists=[str(lists)])
    assert (len(data.videos), len(data.classes), data.grouping) == (83, 101, "ucf101")
    assert left_out(data)["videos that a list names and that are not there"][0] == 13_320 - 83
    tested = range(7 * number - 6, 7 * number + 1)  # groups, as of the split official-N
    for video in data.videos:
        assert video.subset == (3 if int(video.group[-2:]) in tested else 1), video.path


def test_each_shape_has_its_recipe() -> None:
    assert len(COMMANDS) == len(SHAPES)
