"""Several ranks train as one process does: same weights, same figures, one writer."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_train import OPTIONS, metrics_of, prepared, words

from har.training import loop
from har.training.config import ConfigError
from har.training.optim import ModelEma
from har.training.runtime import checkpoint, distributed

SUPPORT = Path(__file__).resolve().parents[2] / "support"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="module", autouse=True)
def environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONWARNINGS", "ignore")
        yield


def start(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=SUPPORT)


def outcome(shards, out, ranks, **settings):
    """What an epoch of `ranks.py` gives."""
    before = [*TORCHRUN, str(ranks)] if ranks > 1 else [sys.executable]
    words = [str(SUPPORT / "ranks.py"), str(shards), str(out), json.dumps(settings)]
    done = start([*before, *words])
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(out, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "more", "exchanges"),
    [("resnet3d", {}, 3), ("convlstm", {}, 3),
     # 18 clips in micro-batches of 6: 2 updates of 2 and 1, and so 2 exchanges
     ("resnet3d", {"batch_size": 12, "grad_accum_steps": 2}, 2)],
)  # fmt: skip
def test_two_and_three_ranks_give_the_weights_of_one(shards, tmp_path, model, more, exchanges):
    settings = {"model": model, "model_options": OPTIONS[model], "frozen_norms": True}
    whole = outcome(shards, tmp_path / "1.pt", 1, **settings | {"batch_size": 6} | more)
    for ranks in (2, 3):
        parts = outcome(shards, tmp_path / f"{ranks}.pt", ranks, **settings | more)
        assert parts["exchanges"] == exchanges
        for key, value in whole["model"].items():
            torch.testing.assert_close(parts["model"][key], value, rtol=1e-4, atol=1e-6)
        for side in ("train", "val"):
            assert parts[side]["count"] == whole[side]["count"]
            assert parts[side]["loss"] == pytest.approx(whole[side]["loss"], rel=1e-4)
            assert parts[side]["acc"] == whole[side]["acc"]


def predict_ranks(shards, ranks, **settings):
    """An epoch as `ranks` processes should train it, in one: batch norm sees each share alone, the
    gradients are added up, running statistics and their average are means over the shares."""
    state = prepared(shards, optimizer="sgd", lr=0.05, **settings)
    state.model.train()
    shares = [copy.deepcopy(state.model) for _ in range(ranks)]
    averages = [ModelEma(share, state.config.ema_decay) for share in shares]
    for batch in state.train_loader.epoch(1):
        weights = state.class_weights[batch.labels] * batch.valid
        for rank, share in enumerate(shares):
            share.load_state_dict(dict(state.model.named_parameters()), strict=False)
            rows = slice(rank * 6 // ranks, (rank + 1) * 6 // ranks)
            losses = F.cross_entropy(share(batch.clips[rows]), batch.labels[rows], reduction="none")
            ((losses * weights[rows]).sum() / weights.sum()).backward()
        for parameter, *parts in zip(
            *(net.parameters() for net in (state.model, *shares)), strict=True
        ):
            parameter.grad = sum(part.grad for part in parts)
            for part in parts:
                part.grad = None
        state.optimizer.step()
        for share, average in zip(shares, averages, strict=True):
            share.load_state_dict(dict(state.model.named_parameters()), strict=False)
            average.update(share)
    mean = copy.deepcopy(averages[0].module)
    for buffer, *parts in zip(mean.buffers(), *(a.module.buffers() for a in averages), strict=True):
        if buffer.is_floating_point():
            buffer.copy_(sum(parts) / ranks)
    val = loop.evaluate(mean, state.val_loader.epoch(), state.device, state.precision)
    state.close()
    return state.model, mean, val


@pytest.mark.slow
def test_batch_norm_of_two_ranks_sees_shares_and_its_statistics_are_their_mean(shards, tmp_path):
    settings = {"model": "resnet3d", "model_options": OPTIONS["resnet3d"], "ema_decay": 0.5}
    parts = outcome(shards, tmp_path / "2.pt", 2, **settings)
    model, averaged, val = predict_ranks(shards, 2, **settings)
    for name, value in model.named_parameters():
        torch.testing.assert_close(parts["model"][name], value, rtol=1e-4, atol=1e-6)
    for name, value in averaged.state_dict().items():
        torch.testing.assert_close(parts["eval_model"][name], value, rtol=1e-4, atol=1e-6)
    first, second = parts["buffers"]
    assert all(first[name].equal(second[name]) for name in first)
    assert parts["val"]["loss"] == pytest.approx(val["loss"], rel=1e-4)
    assert parts["val"]["acc"] == val["acc"]


# Several commands in the same ranks, which take seconds to start: those after the first join by a
# store of their own. What each rank says of each goes to a file.
COMMANDS = """
import contextlib, json, os, sys
from har.training.cli.train import train_main
for number, (out, port, words) in enumerate(json.loads(sys.argv[1])):
    if number:
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "False", "MASTER_PORT": str(port)}
    with open(f"{out}.{os.environ['RANK']}", "w") as file:
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            try:
                train_main(words)
            except SystemExit as end:
                print(f"exit code {end.code}")
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def under_torchrun(shards, tmp_path_factory):
    """Folder of the runs `one`, `folds` and `odd` of two ranks, and what each rank said of each."""
    folder = tmp_path_factory.mktemp("torchrun")
    more = {"one": [], "folds": ["--folds", "2", "--epochs", "1"], "odd": ["--batch-size", "5"]}
    commands = [
        (str(folder / name), free_port(), words(shards, folder / name, *options))
        for name, options in more.items()
    ]
    (folder / "har_train.py").write_text(COMMANDS)
    done = start([*TORCHRUN, "2", str(folder / "har_train.py"), json.dumps(commands)])
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, {
        name: [(folder / f"{name}.{rank}").read_text() for rank in (0, 1)] for name in more
    }


def test_har_train_under_torchrun_is_one_run_with_one_writer(under_torchrun):
    folder, said = under_torchrun
    assert "".join(said["one"]).count("next: har-eval") == 1
    assert said["one"][1] == "exit code 0\n"
    assert [line["epoch"] for line in metrics_of(folder / "one")] == [1, 2]
    assert (folder / "one" / "summary.json").exists()


def test_folds_under_torchrun_are_trained_by_the_same_ranks(under_torchrun):
    folder, said = under_torchrun
    text = "".join(said["folds"])
    assert text.count("fold 2 of 2") == text.count("next: har-eval") == 1
    assert len(list(folder.glob("folds/fold-*/summary.json"))) == 2


def test_a_batch_that_does_not_divide_among_the_ranks_is_refused(under_torchrun):
    folder, said = under_torchrun
    assert "5 clips a forward pass, which do not divide among 2 ranks" in "".join(said["odd"])
    assert all(text.endswith("exit code 2\n") for text in said["odd"])
    assert not (folder / "odd").exists()


def start_two_slow_ranks(shards, out, *more):
    """torchrun, with ranks that write their process ids and take 0.2 s a step; -> it, ids."""
    slow = """
import os, time
from pathlib import Path
from har.training import loop
from har.training.cli.train import train_main
Path(f"{os.environ['HAR_TEST_PIDS']}-{os.environ['RANK']}").write_text(str(os.getpid()))
real = loop.train_step
def step(*arguments):
    time.sleep(0.2)
    return real(*arguments)
loop.train_step = step
train_main()
"""
    program = out.parent / "har_train.py"
    program.write_text(slow)
    command = [program, *words(shards, out, "--epochs", "1000", *more)]
    pids = out.parent / "pid"
    process = subprocess.Popen(
        [*TORCHRUN, "2", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "HAR_TEST_PIDS": str(pids)}, cwd=SUPPORT,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # into the next epoch's steps
    return process, [int(Path(f"{pids}-{rank}").read_text()) for rank in (0, 1)]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_ends_the_other_with_one_sentence(shards, tmp_path, killed):
    process, pids = start_two_slow_ranks(shards, tmp_path / "run")
    os.kill(pids[killed], signal.SIGKILL)
    _, said = process.communicate(timeout=200)  # --rank-timeout is 300 s
    assert process.returncode != 0
    assert not any(alive(pid) for pid in pids)
    assert said.count("lost another rank, which died or hangs") == 1, said
    assert f"rank {1 - killed} of 2 lost another rank, which died or hangs (connection" in said
    assert "Error: rank" in said
    assert "training/loop.py" not in said  # no traceback of ours
    checkpoint.load(tmp_path / "run" / "last.pt")


@pytest.mark.slow
def test_a_rank_that_hangs_is_given_up_after_the_timeout(shards, tmp_path):
    process, pids = start_two_slow_ranks(shards, tmp_path / "run", "--rank-timeout", "4")
    os.kill(pids[1], signal.SIGSTOP)
    start = time.monotonic()
    try:
        while alive(pids[0]) and time.monotonic() - start < 200:  # torch's own limit is 300 s
            time.sleep(0.1)
        assert not alive(pids[0])
    finally:
        os.kill(pids[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "rank 0 of 2 lost another rank, which died or hangs" in said


def test_alone_every_exchange_is_the_value_itself():
    with distributed.init_distributed("cpu") as alone:
        assert (alone.world_size, alone.is_main_process) == (1, True)
        assert alone.all_reduce_max(7, torch.device("cpu")) == 7
        assert alone.broadcast("x") == "x"
        assert torch.equal(alone.all_reduce_sum(torch.ones(2)), torch.ones(2))
        net = torch.nn.Linear(1, 1)
        assert alone.wrap_model(net, torch.device("cpu")) is net


def test_more_processes_than_gpus_is_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "99", "LOCAL_RANK": "99"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ConfigError, match="rank 99 of this machine has no GPU"),
        distributed.init_distributed("cuda"),
    ):
        pass
