"""The README holds true: its Python runs, its commands, options, targets and files exist."""

import importlib
import re
import tomllib
from pathlib import Path

import click
import pytest
from made_shards import make_shards

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def command_of(name):
    module, function = SCRIPTS[name].split(":")
    return getattr(importlib.import_module(module), function)


def lines_with_commands():
    return re.findall(r"^(?:\$ )?((?:har-[a-z-]+)(?: .*)?)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_its_python_runs(number, tmp_path, monkeypatch, capsys):
    make_shards(tmp_path / "shards")
    (tmp_path / "data" / "demo").mkdir(parents=True)
    (tmp_path / "shards").rename(tmp_path / "data" / "demo" / "shards")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", lines_with_commands())
def test_its_commands_and_options_exist(line):
    words = line.split("#")[0].split()
    command = command_of(words[0])
    if isinstance(command, click.Group):
        command = command.commands[words[1]]
    known = {name for option in command.params for name in option.opts + option.secondary_opts}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= known


def test_every_command_is_in_it():
    for name in SCRIPTS:
        assert f"{name}" in TEXT


def test_its_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", TEXT)) - {"it"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_files_it_names_exist():
    for name in re.findall(r"`((?:docs|training|models|tests|pipeline|shards)/[\w./-]+)`", TEXT):
        assert (ROOT / name).exists(), name
