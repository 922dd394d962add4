"""Build, train, evaluate, predict and report, where only the hard dependencies are installed and
what Linux alone has is missing."""

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import bare_machine
import pytest

ROOT = Path(__file__).resolve().parents[1]
IMPORT_NAMES = {"opencv-python-headless": "cv2", "scikit-learn": "sklearn", "pytest-xdist": "xdist"}
SECOND = {"distributed"}  # what dask[distributed] brings beside dask


def name_of(requirement):
    return requirement.split("[")[0].split(">")[0].split("=")[0].strip()


def test_every_package_that_only_extras_bring_is_taken_away():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name_of(one) for more in project["optional-dependencies"].values() for one in more}
    extras -= {"har-ucf101", "ruff", "mypy"}  # programs; nothing imports them
    extras -= {name_of(one) for one in metadata.requires("torch") or []}
    assert {IMPORT_NAMES.get(name, name) for name in extras} | SECOND == bare_machine.EXTRAS


def test_the_short_way_runs_without_extras_and_without_what_only_linux_has(tmp_path):
    videos, shards, run, report = (tmp_path / name for name in ("videos", "set", "run", "report"))
    train = "--model-options width=4 --frames 4 --size 16 --batch-size 4 --epochs 1 --device cpu"
    commands = [
        f"har-shards synthetic {videos} --groups 5 --clips 1",
        f"har-shards build {videos} --out {shards} --frames 4 --size 20x24 --workers 1",
        f"har-shards verify {shards}",
        f"har-train --shards {shards} --out {run} {train} --precision fp32",
        f"har-eval {run} --device cpu",
        f"har-predict {run} {videos} --device cpu",
        f"har-report {run} -o {report}",
        f"har-doctor --device cpu --folder {tmp_path}",
    ]
    path = os.pathsep.join(
        [str(ROOT / "tests" / "support" / "bare"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    done = subprocess.run(
        [sys.executable, bare_machine.__file__, json.dumps([line.split() for line in commands])],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (shards / "manifest.json").is_file()
    assert (report / "report.html").is_file()
    assert list(run.rglob("eval.json"))
    line = json.loads((run / "metrics.jsonl").read_text())
    assert line["peak_bytes"] is None
    assert "no limit known on this system" in done.stdout
    assert "6 videos written, decoded and verified" in done.stdout


@pytest.mark.parametrize("missing", ["fcntl", "scipy", "/proc"])
def test_what_is_taken_away_is_gone(missing):
    """In a process that such a command starts, too."""
    code = f"import {missing}" if missing.isalpha() else f"open('{missing}/self/status')"
    code = f"exec({code!r}, {{'__name__': 'har.x'}})"
    path = str(ROOT / "tests" / "support" / "bare")
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "No module named" in done.stderr or "No such file" in done.stderr
