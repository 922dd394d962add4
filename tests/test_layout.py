"""The structure of the code (docs/design.md): what may import what, and what keeps `--help` quick.

Imports inside functions and under `TYPE_CHECKING` count like all others.
"""

import ast
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from commands import SCRIPTS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("shards", "models", "pipeline", "training")
ROOT_MODULES = ("errors", "atomic", "progress", "fonts", "notebook")
MOST_MODULES = 12  # in a folder
# Each folder may import from those named here; the modules at the root from nothing.
MAY_IMPORT = {
    "shards": set(),
    "models": {"shards"},
    "pipeline": {"shards"},
    "training": {"shards", "models", "pipeline"},
}


def find_modules():
    """Dotted name -> path of every module of the package; tests are none."""
    paths = [ROOT / f"{name}.py" for name in ("__init__", *ROOT_MODULES)]
    paths += [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    names = (("har", *path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return {
        ".".join(name[:-1] if name[-1] == "__init__" else name): path
        for name, path in zip(names, paths, strict=True)
    }


MODULES = find_modules()


def find_imports(name):
    """(imported module of ours, whether the import stands in a function), for each import."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lazy = {id(child) for function in functions for child in ast.walk(function)}
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(base * bool(node.level) + [node.module] * bool(node.module))
            targets = [f"{base}.{alias.name}" for alias in node.names]
        for target in targets:
            while target and target not in MODULES:
                target = target.rpartition(".")[0]
            if target and target != name:
                yield target, id(node) in lazy


@pytest.fixture(scope="module")
def graph():
    """Module -> the modules of ours that it imports."""
    return {name: {target for target, _ in find_imports(name)} for name in MODULES}


def package_of(name):
    """A module's folder; modules that lie beside folders (`har.training.loop`) count singly."""
    parent = name.rpartition(".")[0]
    is_folder = MODULES[name].name == "__init__.py"
    return name if is_folder or (parent.count(".") < 2 and parent != "har.models") else parent


def find_cycle(graph):
    """The names of one cycle, or []."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_the_search_for_a_cycle_finds_one():
    assert set(find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_module_imports_itself_by_way_of_others(graph):
    assert find_cycle(graph) == []


def test_no_package_imports_itself_by_way_of_others(graph):
    packages = {}
    for name, targets in graph.items():
        own = package_of(name)
        packages.setdefault(own, set()).update(map(package_of, targets))
        packages[own].discard(own)
    assert find_cycle(packages) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_from_those_below_it(graph, folder):
    for name, targets in graph.items():
        if name.split(".")[1:2] == [folder]:
            folders = {target.split(".")[1] for target in targets if "." in target}
            assert folders <= MAY_IMPORT[folder] | {folder, *ROOT_MODULES}, name


def test_models_know_of_shards_only_the_transform_that_they_want(graph):
    for name, targets in graph.items():
        if name.startswith("har.models"):
            foreign = {target for target in targets if target.startswith("har.shards")}
            assert foreign <= {"har.shards.transforms.clip_transform"}, name


def test_only_command_lines_import_inside_functions():
    for name in MODULES:
        if "cli" not in name.split("."):
            assert not [target for target, is_lazy in find_imports(name) if is_lazy], name


def test_no_folder_holds_more_modules_than_a_reader_can_hold():
    for path in {path.parent for path in MODULES.values()}:
        modules = [module for module in path.glob("*.py") if module.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, path


def test_every_package_says_what_it_is_for():
    for path in MODULES.values():
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_pytest_looks_into_every_folder_of_tests(pytestconfig):
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    names = {part for folder in folders for part in folder.relative_to(ROOT).parts}
    left_out = pytestconfig.getini("norecursedirs")
    assert not [name for name in names if any(fnmatch(name, pattern) for pattern in left_out)]


def test_no_module_is_a_drawer_for_everything():
    names = {path.stem for path in MODULES.values()}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


def test_the_wheel_holds_every_package_and_nothing_else():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(settings["packages"]) == packages
    assert settings["package-dir"] == {"har": "."}


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_help_of_a_command_imports_nothing_heavy(name):
    """--help answers in 0.12 s because none of these is imported for it."""
    module, function = SCRIPTS[name].split(":")
    code = (
        f"import sys; from {module} import {function} as main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'numba', 'av', 'PIL', 'matplotlib'}\n"
        "heavy = (heavy | {'webdataset'}) & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_import_name_does_not_collide_with_folders_of_the_user(tmp_path):
    """A project that has its own `models/` and `training/` can use har."""
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    for name, path in MODULES.items():
        absolute = re.findall(r"^ *(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        assert not set(absolute) & {*FOLDERS, *ROOT_MODULES}, name
    code = "from har.training.cli.models import models_main; models_main(['list'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "convlstm" in done.stdout


def test_the_oldest_versions_are_those_that_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tools = ("dev", "bench")  # not what a user runs
    extras = [v for name, v in project["optional-dependencies"].items() if name not in tools]
    declared = {
        re.sub(r"\[.*\]", "", name) + "==" + version
        for name, version in (line.split(">=") for line in sum(extras, project["dependencies"]))
    }
    ours, _, _ = (ROOT / "constraints-oldest.txt").read_text().partition("# Not ours")
    assert declared == {line for line in ours.splitlines() if not line.startswith("#")}
