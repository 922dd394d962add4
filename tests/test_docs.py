"""README and docs hold true: Python runs; commands, options, targets, files and links exist."""

import importlib
import re
import tomllib
from pathlib import Path

import click
import pytest
from made_shards import make_shards

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
README = PAGES["README.md"]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def command_of(name):
    module, function = SCRIPTS[name].split(":")
    return getattr(importlib.import_module(module), function)


def commands_in(text):
    """The command lines of code blocks."""
    return re.findall(r"^(?:\$ )?(har-[a-z-]+ [^\n|]*)$", text, re.MULTILINE)


LINES = sorted({(page, line) for page, text in PAGES.items() for line in commands_in(text)})


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_python_of_the_readme_runs(number, tmp_path, monkeypatch, capsys):
    make_shards(tmp_path / "shards")
    (tmp_path / "data" / "demo").mkdir(parents=True)
    (tmp_path / "shards").rename(tmp_path / "data" / "demo" / "shards")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize(("page", "line"), LINES)
def test_commands_and_options_exist(page, line):
    words = line.split("#")[0].split()
    command = command_of(words[0])
    if isinstance(command, click.Group):
        command = command.commands[words[1]]
    options = {name for option in command.params for name in option.opts + option.secondary_opts}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options


def test_options_named_in_the_text_exist():
    commands = [command_of(name) for name in SCRIPTS]
    for command in list(commands):
        if isinstance(command, click.Group):
            commands += command.commands.values()
    options = {name for one in commands for option in one.params for name in option.opts}
    options |= {name for one in commands for option in one.params for name in option.secondary_opts}
    foreign = {"--help", "--nproc-per-node", "--nthreads", "--nworkers", "--logdir", "--no-deps"}
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
