"""Several ranks train as one process does: same weights, same figures, one writer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_shards import make_shards

from training import distributed
from training.config import ConfigError

HERE = Path(__file__).resolve().parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("ranks") / "set").root


def start(command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=environment, cwd=HERE.parent
    )


def outcome(shards, out, ranks, *model):
    before = [*TORCHRUN, str(ranks)] if ranks > 1 else [sys.executable]
    done = start([*before, str(HERE / "ranks.py"), str(shards), str(out), *model])
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(out, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [("resnet3d", "width=4"), ("convlstm", "hidden=[4],stem_channels=4")]
)
def test_two_and_three_ranks_give_the_weights_of_one(shards, tmp_path, model):
    whole = outcome(shards, tmp_path / "1.pt", 1, *model)
    for ranks in (2, 3):
        parts = outcome(shards, tmp_path / f"{ranks}.pt", ranks, *model)
        for key, value in whole["model"].items():
            torch.testing.assert_close(parts["model"][key], value, rtol=1e-4, atol=1e-6)
        for side in ("train", "val"):
            assert parts[side]["count"] == whole[side]["count"]
            assert parts[side]["loss"] == pytest.approx(whole[side]["loss"], rel=1e-4)
            assert parts[side]["acc"] == whole[side]["acc"]


def command_line(shards, out, *more):
    code = "from training.cli import train_main; train_main()"
    program = out.parent / "har_train.py"
    program.write_text(code)
    return [
        str(program), "--model", "resnet3d", "--model-options", "width=4", "--shards", str(shards),
        "--out", str(out), "--frames", "4", "--size", "16", "--batch-size", "6", "--epochs", "2",
        "--device", "cpu", "--precision", "fp32", *more,
    ]  # fmt: skip


def test_har_train_under_torchrun_is_one_run_with_one_writer(shards, tmp_path):
    out = tmp_path / "run"
    done = start([*TORCHRUN, "2", *command_line(shards, out)])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("next: har-eval") == 1
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert (out / "summary.json").exists()


def test_a_batch_that_does_not_divide_among_the_ranks_is_refused(shards, tmp_path):
    out = tmp_path / "run"
    done = start([*TORCHRUN, "2", *command_line(shards, out, "--batch-size", "5")])
    assert done.returncode != 0
    assert "batch size 5 does not divide among 2 ranks" in done.stderr
    assert not out.exists()


def test_alone_every_exchange_is_the_value_itself():
    with distributed.join("cpu") as alone:
        assert (alone.count, alone.speaks) == (1, True)
        assert alone.any(7, torch.device("cpu")) == 7
        assert alone.from_first("x") == "x"
        assert torch.equal(alone.add(torch.ones(2)), torch.ones(2))
        net = torch.nn.Linear(1, 1)
        assert alone.wrap(net, torch.device("cpu")) is net


def test_more_processes_than_gpus_is_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "99", "LOCAL_RANK": "99"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ConfigError, match="rank 99 of this machine has no GPU"),
        distributed.join("cuda"),
    ):
        pass
