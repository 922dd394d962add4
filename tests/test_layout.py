"""The arrows between the rooms (docs/design.md), and what keeps `--help` quick."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("pipeline", "shards", "models", "training")
MAY_IMPORT = {
    "shards": set(),
    "models": set(),
    "pipeline": {"shards"},
    "training": {"shards", "models", "pipeline"},
}
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def imports_of(path):
    """Rooms that a file imports from, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found & set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_against_the_arrows(room):
    for path in (ROOT / room).rglob("*.py"):
        allowed = MAY_IMPORT[room] | {room}
        if room == "training" and path.name != "predict.py":
            allowed -= {"pipeline"}  # only prediction touches a video file
        assert imports_of(path) <= allowed, path


def test_there_is_no_drawer_for_odds_and_ends():
    names = {path.stem for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


def test_the_design_names_every_file():
    design = (ROOT / "docs" / "design.md").read_text()
    for room in ROOMS:
        for path in (ROOT / room).glob("[a-z]*.py"):
            named = f"`{path.name}`" in design or f"`{room}/{path.name}`" in design
            assert named or path.name.startswith("report"), path  # report*.py is one line there


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_a_command_imports_nothing_heavy(name):
    """--help answers in under 0.5 s because none of these is imported for it."""
    module, function = COMMANDS[name].split(":")
    code = (
        f"import sys; from {module} import {function} as main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'torchvision', 'av', 'matplotlib', 'webdataset', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_package_lists_every_room():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(settings["tool"]["setuptools"]["packages"]) == set(ROOMS)
