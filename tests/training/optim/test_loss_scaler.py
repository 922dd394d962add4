"""fp16's loss scale: the order of a step, what a skipped one leaves alone, when a run is lost."""

import pytest
import torch
from tiny_train import message, metrics_of, prepared, train

from har.training import loop, step
from har.training.optim import LossScaler

CPU = torch.device("cpu")


def overflowing(monkeypatch, steps):
    """Let the gradients of these optimizer steps (counted from 0) overflow."""
    real, done = LossScaler.step, []

    def step_(self, optimizer, parameters, clip_grad):
        parameters = list(parameters)
        if len(done) in steps:
            parameters[0].grad.fill_(float("inf"))
        done.append(1)
        return real(self, optimizer, parameters, clip_grad)

    monkeypatch.setattr(LossScaler, "step", step_)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("clip_grad", [0.0, 0.5])
def test_a_step_unscales_then_clips_then_steps(optimizer, clip_grad):
    """The weights end where a float32 step without any scale takes them."""
    weights = []
    for precision in (torch.float16, torch.float32):
        weight = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
        stepper, scaler = optimizer([weight], lr=0.1), LossScaler(precision, CPU)
        for _ in range(3):
            scaler.backward((weight**2).sum() / 2)  # the gradient is the weight: norm 5
            assert scaler.step(stepper, [weight], clip_grad)
            stepper.zero_grad()
        weights.append(weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
def test_a_skipped_step_moves_nothing_and_the_next_goes_on(shards, monkeypatch, clip_grad):
    state = prepared(
        shards, precision="fp16", clip_grad=clip_grad, ema_decay=0.9, lr_scheduler="cosine",
        warmup_epochs=2.0,
    )  # fmt: skip
    overflowing(monkeypatch, {1})
    seen = []
    for batch in state.train_loader.epoch(1):
        step.train_step(state, batch, update_weights=True)
        weights = [p.detach().clone() for p in state.model.parameters()]
        adam = {int(held["step"]) for held in state.optimizer.state.values()}
        average = [p.clone() for p in state.eval_model.parameters()]
        updates = state.ema.state_dict()["updates"]
        seen.append((weights, average, state.lr_scheduler.lr, updates, adam))
    state.close()
    (first, average, lr, updates, adam), second, third = seen
    assert all(map(torch.equal, first, second[0]))
    assert all(map(torch.equal, average, second[1]))
    assert (lr, updates, adam) == second[2:] == (lr, 1, {1})
    assert not all(map(torch.equal, first, third[0]))
    assert third[2] > lr
    assert third[3:] == (2, {2})
    assert state.progress.skipped_steps == 1
    assert state.loss_scaler.state_dict()["scale"] == 32768
    assert not state.loss_scaler.has_collapsed


def test_a_skipped_step_is_counted_in_the_epochs_line_and_the_run_goes_on(
    shards, tmp_path, monkeypatch
):
    overflowing(monkeypatch, {1, 2, 4})
    result = train(shards, tmp_path / "run", "--precision", "fp16")
    assert result.exit_code == 0, result.output
    assert [line["skipped_steps"] for line in metrics_of(tmp_path / "run")] == [2, 1]
    assert "2 steps skipped: gradients overflowed fp16" in result.output


def test_without_skipped_steps_a_line_says_nothing_of_them(trained):
    assert "skipped_steps" not in metrics_of(trained)[0]


@pytest.mark.parametrize("cause", ["many in a row", "a scale that is too small"])
def test_a_run_that_no_scale_helps_has_diverged(shards, tmp_path, monkeypatch, cause):
    overflowing(monkeypatch, set(range(10**6)))
    if cause == "many in a row":
        monkeypatch.setattr("har.training.optim.loss_scaler._MOST_SKIPPED", 2)
    else:
        monkeypatch.setattr("har.training.optim.loss_scaler._MIN_SCALE", 20000.0)
    out = tmp_path / "run"
    result = train(shards, out, "--precision", "fp16")
    assert result.exit_code == 1
    text = "the gradients of epoch 1 overflow fp16 at every loss scale: try a lower --lr or"
    assert text in message(result)
    assert not (out / "last.pt").exists()


def test_a_loss_that_is_not_finite_is_no_matter_of_scale(shards, tmp_path, monkeypatch):
    real = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *a: real(*a) * float("nan"))
    monkeypatch.setattr("har.training.step.update_metrics", lambda metrics, *_: metrics.sums.fill_(
        float("nan")))  # fmt: skip
    result = train(shards, tmp_path / "run", "--precision", "fp16")
    assert result.exit_code == 1
    assert "the loss of epoch 1 is not finite from step 0 on" in message(result)
