"""A device that no test has run on is tried before the first step; --recompute auto."""

import copy
import functools

import pytest
import torch
from tiny_train import message, prepared, train, words

from har import models
from har.training import machine
from har.training.cli.train import train_main
from har.training.config import Config, make
from har.training.optim import make_optimizer
from har.training.runtime import memory

CPU = torch.device("cpu")
OPTIONS = {
    "resnet3d": {"width": 4}, "r2plus1d": {"width": 4}, "r3d": {"weights": "none"},
    "convlstm": {"hidden": [4], "stem_channels": 4},
}  # fmt: skip


def find_fault(model, precision="fp32"):
    config = Config().resolve()
    return machine.find_device_fault(
        model, CPU, precision, functools.partial(make_optimizer, config)
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d", "convlstm"])
def test_a_device_that_computes_right_has_no_fault(name, precision):
    """The CPU against itself, in another precision."""
    model = models.build(name, 5, seed=0, **OPTIONS[name])
    before = copy.deepcopy(model.state_dict())
    assert find_fault(model, precision) is None
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Wrong(torch.nn.Module):
    """A layer that computes on its second use what no CPU would: as a device with a fault does."""

    uses = 0

    def __init__(self, fault):
        super().__init__()
        self.conv, self.fault = torch.nn.Conv3d(3, 4, 3), fault

    def forward(self, x):
        Wrong.uses += 1
        y = self.conv(x).mean((2, 3, 4))
        if Wrong.uses < 2:
            return y
        return self.fault(y)


def not_there(_):
    raise NotImplementedError(
        "The operator 'aten::conv3d' is not implemented for this device\nmore"
    )


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (lambda y: -y, "is wrong on cpu (its gradients have a cosine of -"),
        (lambda y: y * float("nan"), "not finite"),
        (not_there, "in fp32 fails on cpu (The operator 'aten::conv3d' is not implemented for this "
                    "device)"),
        (lambda y: y.detach() + sum(0 * p.sum() for p in ()), "fails on cpu (element 0 of tensors"),
    ],
)  # fmt: skip
def test_a_device_that_computes_wrong_or_not_at_all_is_told(fault, text):
    Wrong.uses = 0
    assert text in find_fault(Wrong(fault))


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_run_never_trains_on_a_device_that_is_wrong(shards, tmp_path, monkeypatch, device):
    """The CPU stands for one; "auto" goes on on the real CPU, a device asked for is refused."""
    monkeypatch.setattr(machine, "TRUSTED", ("cuda",))
    assert train(shards, tmp_path / "sound", "--device", device, "--epochs", 1).exit_code == 0
    monkeypatch.setattr(machine, "find_device_fault", lambda *_: "a step is wrong on mps")
    result = train(shards, tmp_path / "run", "--device", device, "--epochs", 1)
    if device == "auto":
        assert result.exit_code == 0, result.output
        assert "WARNING: a step is wrong on mps: this run trains on the CPU" in result.output
    else:
        assert result.exit_code == 2
        assert "--device cpu: a step is wrong on mps: use '--device cpu'." in message(result)


@pytest.mark.parametrize(
    ("options", "free", "recompute"),
    [
        ([], 10**9, False),
        ([], 10**4, True),
        ([], None, True),  # a system that does not say
        (["--recompute", "auto"], 10**9, False),
        (["--recompute"], 10**9, True),
        (["--recompute", "on"], 10**9, True),
        (["--recompute", "off"], 10**5, False),
        (["--no-recompute"], 10**5, False),
        (["--batch-size", "auto"], 10**9, True),  # the batch fills the memory
        (["--model-options", "hidden=[4],stem_channels=4,recompute=true"], 10**9, True),
    ],
    ids=str,
)  # fmt: skip
def test_recompute_auto_keeps_the_gates_where_they_take_a_quarter_of_the_memory_at_most(
    shards, tmp_path, monkeypatch, options, free, recompute
):
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    given = words(shards, tmp_path / "run", *options, model="convlstm")
    settings = train_main.make_context("har-train", given).params
    fields = {name: settings[name] for name in Config.__annotations__ if name in settings}
    state = prepared(shards, config=make(fields))
    state.close()
    assert state.state_dict()["model_options"]["recompute"] is recompute


def test_gate_bytes_are_those_of_the_gates(shards):
    """6 clips of 4 steps, 4 hidden channels: states are a quarter of 16x16; 4 gates each."""
    state = prepared(shards, model="convlstm", model_options="hidden=[4,8],stem_channels=4"
                     .replace(",8]", ";8]"))  # fmt: skip
    state.close()
    shape = (6, 3, 4, 16, 16)
    assert state.model.gate_bytes(shape, 4) == [6 * 4 * 16 * 4 * 4 * 4, 6 * 4 * 32 * 2 * 2 * 4]
