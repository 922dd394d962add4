"""Which parameters learn at which rate, and by what rule."""

import pytest
import torch
from tiny_train import OPTIONS, message, prepared, train

from har import models
from har.training.config import Config, ConfigError
from har.training.optim import make_optimizer


def groups_of(config, model):
    """(lr, weight decay, names) of each group."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = make_optimizer(config.resolve(), model).param_groups
    return [
        (g["lr"], g["weight_decay"], {names[id(p)] for p in g["params"]}) for g in groups
    ]  # fmt: skip


@pytest.mark.parametrize("name", models.NAMES)
def test_the_classifier_of_every_model_learns_at_a_rate_of_its_own(name):
    options = {"weights": "none"} if name == "r3d" else Config(model_options=OPTIONS[name]).options
    model = models.build(name, 3, **options)
    names = {name for name, _ in model.named_parameters()}
    config = Config(model=name, weights="none", weight_decay=0.1, lr=0.01, lr_head=0.5)
    body, thin, head, bias = groups_of(config, model)
    assert (head, bias) == ((0.5, 0.1, {"fc.weight"}), (0.5, 0.0, {"fc.bias"}))
    assert body[:2] == (0.01, 0.1)
    assert thin[:2] == (0.01, 0.0)
    assert body[2] | thin[2] == names - {"fc.weight", "fc.bias"}


def test_without_it_the_groups_are_those_of_before():
    model = models.build("resnet3d", 3, width=4)
    (lr, decay, weights), (_, none, others) = groups_of(Config(lr=0.01, weight_decay=0.1), model)
    assert (lr, decay, none) == (0.01, 0.1, 0.0)
    assert "fc.weight" in weights
    assert "fc.bias" in others


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.5, True), (0.0, False)])
def test_sgd_has_the_momentum_asked_for(momentum, nesterov):
    config = Config(optimizer="sgd", momentum=momentum).resolve()
    optimizer = make_optimizer(config, torch.nn.Linear(2, 2))
    assert optimizer.defaults["momentum"] == momentum
    assert optimizer.defaults["nesterov"] == nesterov
    assert Config().momentum == 0.9


def test_a_model_that_does_not_name_its_classifier_is_refused():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"--lr-head 0.5: .*has no part 'fc' that learns"):
        make_optimizer(Config(lr_head=0.5).resolve(), model)


def test_a_run_logs_the_rate_of_its_classifier(shards, tmp_path):
    result = train(shards, tmp_path / "run", "--lr-head", 0.5, "--epochs", 1)
    assert "lr 1.0e-03 head 5.0e-01" in message(result)
    state = prepared(shards, lr_head=0.25)
    state.close()
    assert state.lr_scheduler.lr_head == 0.25
