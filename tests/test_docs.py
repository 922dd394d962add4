"""README and docs hold true: Python runs; commands, options, targets, files and links exist."""

import dataclasses
import importlib
import re
import shutil
from pathlib import Path

import click
import pytest
from commands import SCRIPTS, load_command
from made_shards import make_shards
from pdoc import doc

import har
from har.training import config

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
README = PAGES["README.md"]
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def commands_in(text):
    """The command lines of code blocks."""
    return re.findall(r"^(?:\$ )?(har-[a-z-]+ [^\n|]*)$", text, re.MULTILINE)


LINES = sorted({(page, line) for page, text in PAGES.items() for line in commands_in(text)})


@pytest.fixture
def small_defaults(monkeypatch, quick_pictures):
    """What a page leaves to the defaults of a training is tiny, but for the frames: the shards must
    have them."""
    small = {
        "size": 16, "batch_size": 6, "device": "cpu", "precision": "fp32",
        "model_options": "hidden=[4],stem_channels=4",
    }  # fmt: skip
    for name, preset in config.PRESETS.items():
        monkeypatch.setitem(config.PRESETS, name, preset | small)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_python_of_the_readme_runs(number, tmp_path, monkeypatch, capsys, small_defaults):
    make_shards(tmp_path / "shards", shape=(8, 36, 48, 3))  # the frames of `make demo`
    (tmp_path / "data" / "demo").mkdir(parents=True)
    (tmp_path / "shards").rename(tmp_path / "data" / "demo" / "shards")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_python_of_its_page_runs_from_top_to_bottom(
    tmp_path, monkeypatch, synthetic_videos, capsys, small_defaults
):
    (tmp_path / "data" / "videos").mkdir(parents=True)
    make_shards(tmp_path / "data" / "shards", shape=(18, 36, 48, 3))
    monkeypatch.chdir(tmp_path)
    videos = sorted(synthetic_videos.rglob("*.avi"))[:2]
    for video in videos:
        shutil.copy(video, "data/videos")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGES["python.md"], re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    output = capsys.readouterr().out
    assert "unknown option 'epoch' (did you mean epochs or on_epoch?): the options are" in output
    assert len(names["losses"]) == 2
    assert [answer.path.name for answer in names["answers"]] == [video.name for video in videos]
    assert names["answer"].times[0] == (0.0, 1.0)
    assert names["run"].config.epochs == 7
    assert {path.name for path in Path("runs").iterdir()} == {"waves", "modern", "background"}


def test_the_api_reference_shows_the_door_with_every_option():
    """`make docs` looks up the names first, as here."""
    assert "getattr(p, name) for p in (har, har.shards)" in (ROOT / "Makefile").read_text()
    for name in har.__all__:
        getattr(har, name)
    members = doc.Module(har).members
    assert {"train", "resume", "load_run", "predict", "Run"} <= set(members)
    options = {field.name for field in dataclasses.fields(config.Config)}
    assert options | {"out", "quiet"} <= set(members["train"].signature.parameters)
    assert members["Run"].members["evaluate"].docstring.startswith("Evaluate the best checkpoint")


@pytest.mark.parametrize(("page", "line"), LINES)
def test_commands_and_options_exist(page, line):
    words = line.split("#")[0].split()
    command = load_command(words[0])
    if isinstance(command, click.Group):
        command = command.commands[words[1]]
    options = {name for option in command.params for name in option.opts + option.secondary_opts}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options


def test_options_named_in_the_text_exist():
    commands = [load_command(name) for name in SCRIPTS]
    for command in list(commands):
        if isinstance(command, click.Group):
            commands += command.commands.values()
    options = {name for one in commands for option in one.params for name in option.opts}
    options |= {name for one in commands for option in one.params for name in option.secondary_opts}
    foreign = {"--help", "--nproc-per-node", "--nthreads", "--nworkers", "--logdir", "--no-deps"}
    foreign |= {"--recipes", "--minutes"}  # of make ablation's OPTIONS
    for page, text in PAGES.items():
        named = set(re.findall(r"`(--[a-z][a-z-]+)", text))
        assert named <= options | foreign, page


def test_every_command_is_in_the_readme():
    for name in SCRIPTS:
        assert f"`{name}" in README or f"`har-bench-loader`, `{name}`" in README, name


@pytest.mark.parametrize("page", sorted(PAGES))
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)", PAGES[page])):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", sorted(PAGES))
def test_files_modules_and_links_exist(page):
    text = PAGES[page]
    folder = ROOT if page == "README.md" else ROOT / "docs"
    for name in re.findall(r"`((?:docs|training|models|tests|pipeline|shards)/[\w./-]+\w)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`har(?:\.\w+)+", text):
        importable(name[1:])
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (folder / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([\w-]+)\)", text):
        linked = (folder / target).read_text() if target else text
        headings = re.findall(r"^#+ (.*)$", linked, re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
        assert anchor in anchors, anchor


def importable(name):
    """A module, or an attribute (of a class) in one. Raises AttributeError for what is neither."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[count:]:
            thing = getattr(thing, attribute)
        return
    raise AttributeError(name)
