"""har-reproduce: the plan, what is skipped or goes on, what it costs; once with real commands."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_runs import make

from har.training.cli.results import reproduce_main
from har.training.paper import plan, reproduce, timing
from har.training.paper.reproduce import ReproduceError, Wanted


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    videos = tmp_path / "videos" / "YoYo"
    videos.mkdir(parents=True)
    for number in range(10):
        (videos / f"v_YoYo_g{number:02d}_c01.avi").write_text("")
    folders = (tmp_path / "shards", tmp_path / "runs", tmp_path / "reports")
    return Wanted(tmp_path / "videos", *folders, presets=("paper",), seeds=2, weights="none")


@pytest.fixture
def commands(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands called; each leaves behind what the real one leaves when it is done."""
    calls: list[list[str]] = []

    def call(*words: object) -> int:
        calls.append([str(word) for word in words])
        command, *rest = calls[-1]
        if command == "har-shards":
            wanted.shards.mkdir()
            (wanted.shards / "manifest.json").write_text("{}")
        elif command == "har-train":
            name = "--resume" if "--resume" in rest else "--out"
            folder = Path(rest[rest.index(name) + 1])
            folder.mkdir(parents=True, exist_ok=True)
            for file in ("summary.json", "best.pt", "last.pt"):
                (folder / file).write_text("")
        elif command == "har-eval":
            _touch(Path(rest[0]) / "eval.json", len(calls))
        else:
            out = Path(rest[rest.index("-o") + 1])
            out.mkdir(parents=True, exist_ok=True)
            _touch(out / "report.html", len(calls))
        return 0

    monkeypatch.setattr(reproduce, "_call", call)
    monkeypatch.setattr(plan, "lines", lambda *_: "")
    return calls


def _touch(path: Path, now: int) -> None:
    """A file as of `now`: the clock of files is too coarse for commands that take no time."""
    path.write_text("")
    os.utime(path, (now, now))


def _names(calls: list[list[str]]) -> list[str]:
    return [call[0] for call in calls]


def test_a_stage_is_all_models_of_one_split_and_seed_and_ends_with_its_report(
    wanted: Wanted, commands: list
):
    assert reproduce.run(wanted) == 0
    one = ["har-train", "har-eval"] * 4 + ["har-report"]
    assert _names(commands) == ["har-shards", *one * 4]
    assert commands[1][1:9] == [
        "--preset", "paper", "--model", "r3d", "--split", "paper", "--seed", "0",
    ]  # fmt: skip
    assert "none" in commands[1]
    assert "--weights" not in commands[3]  # those are r3d's
    reports = [call for call in commands if call[0] == "har-report"]
    assert [len([w for w in call if "/runs/" in w]) for call in reports] == [4, 4, 8, 8]


def test_what_is_done_is_skipped(wanted: Wanted, commands: list):
    reproduce.run(wanted)
    commands.clear()
    assert reproduce.run(wanted) == 0
    assert commands == []


def test_a_stopped_run_goes_on_and_one_killed_before_its_first_save_is_laid_aside(
    wanted: Wanted, commands: list
):
    place = wanted.runs / "paper" / "paper"
    (place / "r3d-0").mkdir(parents=True)
    (place / "r3d-0" / "last.pt").write_text("")
    (place / "r2plus1d-0").mkdir()
    (place / "r2plus1d-0" / "log.txt").write_text("mine")
    reproduce.run(wanted)
    assert commands[1] == ["har-train", "--resume", str(place / "r3d-0")]
    assert "--out" in commands[3]
    assert (place / "r2plus1d-0-stopped-1" / "log.txt").read_text() == "mine"


def test_a_step_that_fails_ends_it_with_its_exit_code(wanted: Wanted, commands: list, monkeypatch):
    inner = reproduce._call
    monkeypatch.setattr(reproduce, "_call", lambda *w: 2 if w[0] == "har-eval" else inner(*w))
    assert reproduce.run(wanted) == 2
    assert _names(commands) == ["har-shards", "har-train"]


def test_ctrl_c_says_that_the_same_command_goes_on(wanted: Wanted, commands, monkeypatch, capsys):
    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce, "_call", stop)
    assert reproduce.run(wanted) == 130
    assert "the same command goes on here" in capsys.readouterr().err


def test_two_at_once_are_refused(wanted: Wanted, commands: list):
    wanted.runs.mkdir(parents=True)
    with open(wanted.runs / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ReproduceError, match="another har-reproduce is at work"):
            reproduce.run(wanted)
    assert commands == []


def test_the_cost_is_epochs_times_clips_over_speed(wanted: Wanted, monkeypatch):
    monkeypatch.setattr(timing, "training", lambda config: (10.0, 40.0))
    monkeypatch.setattr(timing, "decoding", lambda videos: 1800.0)
    monkeypatch.setattr(timing, "where", lambda: "a test")
    text = plan.lines(wanted, reproduce.plan(wanted))
    # 50 epochs of 6.4 clips at 10/s and 1.6 at 40/s, then 2 test clips at 40/s; four models
    run = 50 * (6.4 / 10 + 1.6 / 40) + 2 / 40
    lines = text.splitlines()
    assert lines[0] == "16 runs in 4 stages, 0 of them done."
    assert "30.0 min  (10 videos)" in lines[1]
    assert "not UCF101's 13,320 videos" in lines[2]
    assert f"{4 * run / 60:.1f} min  then {30 + 4 * run / 60:.1f} min in all" in lines[3]
    assert lines[-1].startswith("At most ")


def test_this_machine_is_timed_with_the_models_own_shape(wanted: Wanted):
    extra = ("--frames", "2", "--size", "16", "--model-options", "width=4", "--precision", "fp32")
    (one,) = reproduce.plan(
        Wanted(wanted.videos, models=("resnet3d",), presets=("paper",), splits=("paper",),
               seeds=1, extra=extra)
    )  # fmt: skip
    trained, looked = timing.training(one.runs[0].config)
    assert 0 < trained < looked


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--seeds", "0"], "--seeds 0 does not work"),
        (["--", "--model", "r3d"], "--model is chosen by har-reproduce itself"),
        (["--", "--out=x"], "--out is chosen by har-reproduce itself"),
        (["--", "--epochs", "x"], "after the -- stand options of har-train"),
        (["--", "--epochs", "0"], "--epochs 0"),
    ],
)
def test_bad_options_are_one_sentence_before_anything_is_done(wanted: Wanted, given: list, text):
    told = CliRunner().invoke(reproduce_main, [str(wanted.videos), *given])
    assert told.exit_code == 2
    assert text in told.output
    assert "Traceback" not in told.output


def test_a_finished_run_is_known_by_its_files(tmp_path: Path, wanted: Wanted):
    run = reproduce.Run(tmp_path / "r", reproduce.plan(wanted)[0].runs[0].config)
    assert not run.trained
    make(tmp_path / "r", "r3d")
    assert run.finished


@pytest.mark.slow
def test_with_real_commands_it_is_stopped_and_goes_on(synthetic_videos: Path, tmp_path: Path):
    program = Path(sys.executable).with_name("har-reproduce")
    places = [w for n in ("shards", "runs", "reports") for w in (f"--{n}", str(tmp_path / n))]
    command = [
        str(program), str(synthetic_videos), *places, "--seeds", "1", "--preset", "paper",
        "--split", "paper", "--model", "resnet3d", "--model", "convlstm", "--",
        "--epochs", "4", "--frames", "4", "--size", "32", "--batch-size", "4", "--workers", "0",
        "--precision", "fp32",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    last, end = tmp_path / "runs/paper/paper/resnet3d-0/metrics.jsonl", time.monotonic() + 200
    while not (last.exists() and last.read_text()):
        assert time.monotonic() < end
        assert first.poll() is None
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130
    assert not (tmp_path / "reports").exists()
    second = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=500, check=True
    )
    assert "har-train --resume" in second.stdout
    assert (tmp_path / "reports/paper/paper/report.html").is_file()
    third = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    assert "$" not in third.stdout  # no command was needed
    assert "2 of them done" in third.stdout
