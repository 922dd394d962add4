"""har-reproduce: the plan, what is skipped or resumed, what it costs; once with real commands."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_runs import make

from har.pipeline.dataset import list_folder
from har.training.cli.results import reproduce_main
from har.training.config import ConfigError
from har.training.paper import ReproduceError, ReproduceOptions, estimate, reproduce_paper
from har.training.paper import reproduce as module
from har.training.paper.plan import plan_stages


@pytest.fixture
def options(tmp_path: Path) -> ReproduceOptions:
    videos = tmp_path / "videos" / "YoYo"
    videos.mkdir(parents=True)
    for number in range(10):
        (videos / f"v_YoYo_g{number:02d}_c01.avi").write_text("")
    folders = (tmp_path / "shards", tmp_path / "runs", tmp_path / "reports")
    return ReproduceOptions(
        tmp_path / "videos", *folders, presets=("paper",), seeds=2, weights="none"
    )


@pytest.fixture
def commands(options: ReproduceOptions, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands called; each leaves behind what the real one leaves when it is done."""
    calls: list[list[str]] = []

    def call(*words: object) -> int:
        calls.append([str(word) for word in words])
        command, *rest = calls[-1]
        if command == "har-shards":
            options.shards.mkdir()
            (options.shards / "manifest.json").write_text("{}")
        elif command == "har-train":
            name = "--resume" if "--resume" in rest else "--out"
            folder = Path(rest[rest.index(name) + 1])
            folder.mkdir(parents=True, exist_ok=True)
            for file in ("best.pt", "last.pt"):
                (folder / file).write_text("")
            (folder / "summary.json").write_text('{"split": {}}')
        elif command == "har-eval":
            _touch(Path(rest[0]) / "eval.json", len(calls))
        else:
            out = Path(rest[rest.index("-o") + 1])
            out.mkdir(parents=True, exist_ok=True)
            _touch(out / "report.html", len(calls))
        return 0

    monkeypatch.setattr(module, "call_command", call)
    monkeypatch.setattr(estimate, "describe_costs", lambda *_: "")
    return calls


def _touch(path: Path, now: int) -> None:
    """A file as of `now`: file times are too coarse for commands that take no time."""
    path.write_text("")
    os.utime(path, (now, now))


def _names(calls: list[list[str]]) -> list[str]:
    return [call[0] for call in calls]


def test_a_stage_is_all_models_of_one_split_and_seed_and_ends_with_its_report(
    options: ReproduceOptions, commands: list
):
    assert reproduce_paper(options) == 0
    stage = ["har-train", "har-eval"] * 4 + ["har-report"]
    assert _names(commands) == ["har-shards", *stage * 4]
    assert commands[1][1:9] == [
        "--preset", "paper", "--model", "r3d", "--split", "paper", "--seed", "0",
    ]  # fmt: skip
    assert "none" in commands[1]
    assert "--weights" not in commands[3]  # those are r3d's
    reports = [call for call in commands if call[0] == "har-report"]
    assert [len([w for w in call if "/runs/" in w]) for call in reports] == [4, 4, 8, 8]
    commands.clear()  # and what is done is skipped
    assert reproduce_paper(options) == 0
    assert commands == []


def test_a_stopped_run_is_resumed_and_one_killed_before_its_first_save_is_moved_aside(
    options: ReproduceOptions, commands: list
):
    folder = options.runs / "paper" / "paper"
    (folder / "r3d-0").mkdir(parents=True)
    (folder / "r3d-0" / "last.pt").write_text("")
    (folder / "r2plus1d-0").mkdir()
    (folder / "r2plus1d-0" / "log.txt").write_text("mine")
    reproduce_paper(options)
    assert commands[1] == ["har-train", "--resume", str(folder / "r3d-0")]
    assert "--out" in commands[3]
    assert (folder / "r2plus1d-0-stopped-1" / "log.txt").read_text() == "mine"


def test_a_step_that_fails_ends_it_with_its_exit_code(options, commands: list, monkeypatch):
    call = module.call_command
    monkeypatch.setattr(
        module, "call_command", lambda *words: 2 if words[0] == "har-eval" else call(*words)
    )
    assert reproduce_paper(options) == 2
    assert _names(commands) == ["har-shards", "har-train"]


def test_a_run_that_became_nan_is_left_out_of_the_report(options, commands: list, monkeypatch):
    call = module.call_command

    def diverge(*words: object) -> int:
        code = call(*words)
        if "r3d" not in words:
            return code
        (Path(str(words[-1])) / "best.pt").unlink()
        return 1

    monkeypatch.setattr(module, "call_command", diverge)
    assert reproduce_paper(replace(options, seeds=1, splits=("paper",))) == 0
    assert _names(commands).count("har-eval") == 3
    assert not any("r3d-0" in word for word in commands[-1])


@pytest.mark.parametrize(
    ("clips", "evaluated"),
    [({"test": 0, "val": 3}, ["--subset", "val"]), ({"test": 3, "val": 0}, ["--subset", "test"]),
     ({"test": 0, "val": 0}, None)],
)  # fmt: skip
def test_runs_are_evaluated_on_what_their_split_has(
    options, commands: list, monkeypatch, capsys, clips: dict, evaluated: list | None
):
    call = module.call_command

    def train(*words: object) -> int:
        code = call(*words)
        if words[0] == "har-train":
            summary = Path(str(words[-1])) / "summary.json"
            summary.write_text(json.dumps({"split": {"clips": clips}}))
        return code

    monkeypatch.setattr(module, "call_command", train)
    assert reproduce_paper(replace(options, seeds=1, splits=("csv",))) == 0
    calls = [words[2:] for words in commands if words[0] == "har-eval"]
    assert calls == [evaluated] * 4 * (evaluated is not None)
    assert ("neither test nor val clips" in capsys.readouterr().err) == (evaluated is None)


def test_ctrl_c_says_that_the_same_command_goes_on(options, commands, monkeypatch, capsys):
    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "call_command", stop)
    assert reproduce_paper(options) == 130
    assert "the same command goes on here" in capsys.readouterr().err


def test_empty_weights_are_no_default(options: ReproduceOptions):
    with pytest.raises(ConfigError, match="--weights '' names nothing"):
        plan_stages(replace(options, weights=""))


def test_two_at_once_are_refused(options: ReproduceOptions, commands: list):
    options.runs.mkdir(parents=True)
    with open(options.runs / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ReproduceError, match="another har-reproduce is at work"):
            reproduce_paper(options)
    assert commands == []


def test_the_cost_is_epochs_times_clips_over_speed(options: ReproduceOptions, monkeypatch):
    monkeypatch.setattr(estimate, "measure_speed", lambda config: estimate.Speed(10.0, 40.0))
    monkeypatch.setattr(estimate, "measure_decoding", lambda videos: 1800.0)
    monkeypatch.setattr(estimate.devices, "device_name", lambda device: "a test")
    lines = estimate.describe_costs(options, plan_stages(options)).splitlines()
    # 50 epochs of 6.4 clips at 10/s and 1.6 at 40/s, then 2 test clips at 40/s; four models
    run = 50 * (6.4 / 10 + 1.6 / 40) + 2 / 40
    assert lines[0] == "16 runs in 4 stages, 0 of them done."
    assert "30.0 min  (10 videos)" in lines[1]
    assert "not UCF101's 13,320 videos" in lines[2]
    assert f"{4 * run / 60:.1f} min  then {30 + 4 * run / 60:.1f} min in all" in lines[3]
    assert lines[-1].startswith("At most ")


@pytest.mark.parametrize("batch_size", [32, -1])  # -1: auto
def test_this_machine_is_timed_with_the_models_own_shape(options, batch_size: int):
    settings = {"frames": 2, "size": 16, "model_options": "width=4", "precision": "fp32"}
    only = {"models": ("resnet3d",), "presets": ("paper",), "splits": ("paper",), "seeds": 1}
    settings["batch_size"] = batch_size
    (stage,) = plan_stages(replace(options, **only, train_settings=settings))
    speed = estimate.measure_speed(stage.runs[0].config)
    assert 0 < speed.train < speed.evaluate


def test_decoding_is_timed_on_videos_that_can_be_decoded(synthetic_videos: Path, tmp_path: Path):
    videos = list_folder(synthetic_videos)[0]
    broken = tmp_path / "broken.avi"
    broken.write_text("")
    assert len(videos) == 30
    assert 0 < estimate.measure_decoding([broken, *videos[:4]]) < 60
    assert estimate.measure_decoding([broken]) == 0


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--seeds", "0"], "'--seeds': 0 is not in the range"),
        (["--", "--model", "r3d"], "--model is chosen by har-reproduce itself"),
        (["--", "--out=x"], "--out is chosen by har-reproduce itself"),
        (["--", "--epochs", "x"], "after the -- stand options of har-train"),
        (["--", "--epochs", "0"], "--epochs 0"),
    ],
)
def test_bad_options_are_one_sentence_before_anything_is_done(options, given: list, text: str):
    result = CliRunner().invoke(reproduce_main, [str(options.videos), *given])
    assert result.exit_code == 2
    assert text in result.output
    assert "Traceback" not in result.output


def test_options_of_har_train_reach_every_run_and_its_plan(options, commands, tmp_path: Path):
    (tmp_path / "c.toml").write_text("lr = 0.5\n")
    arguments = ["--shards", options.shards, "--runs", options.runs, "--reports", options.reports]
    arguments += ["--seeds", 1, "--weights", "none"]
    train = ["--epochs", "7", "--no-augment", "--config", tmp_path / "c.toml"]
    words = [str(word) for word in (options.videos, *arguments, "--", *train)]
    assert CliRunner().invoke(reproduce_main, words).exit_code == 0
    trained = [call for call in commands if call[0] == "har-train"]
    assert len(trained) == 16
    for call in trained:
        assert call[call.index("--epochs") :][:3] == ["--epochs", "7", "--no-augment"]
        assert call[-4:-2] == ["--config", str(tmp_path / "c.toml")]
    settings = {"epochs": 7, "augment": False}
    planned = replace(options, train_settings=settings, train_config=tmp_path / "c.toml")
    config = plan_stages(planned)[0].runs[0].config
    assert (config.epochs, config.augment, config.lr) == (7, False, 0.5)


def test_a_finished_run_is_known_by_its_files(tmp_path: Path, options: ReproduceOptions):
    run = replace(plan_stages(options)[0].runs[0], folder=tmp_path / "r")
    assert not run.is_trained
    make(tmp_path / "r", "r3d")
    assert run.is_evaluated


@pytest.mark.slow
def test_with_real_commands_it_is_stopped_and_goes_on(synthetic_videos: Path, tmp_path: Path):
    program = Path(sys.executable).with_name("har-reproduce")
    folders = [w for n in ("shards", "runs", "reports") for w in (f"--{n}", str(tmp_path / n))]
    command = [
        str(program), str(synthetic_videos), *folders, "--seeds", "1", "--preset", "paper",
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
