"""The learning rate over epochs and steps, and that it goes on from its state."""

import pytest
import torch

from har.training.config import Config
from har.training.optim import LrScheduler
from har.training.optim.lr_scheduler import cosine_factor


def optimizer(lr=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_plateau_lowers_the_rate_after_its_patience():
    rate = LrScheduler(Config(plateau_patience=1, plateau_factor=0.5), optimizer(), 10)
    seen = []
    for loss in (1.0, 0.9, 0.95, 0.95, 0.95, 0.95):
        rate.step_epoch(loss)
        seen.append(rate.lr)
    assert seen == [1, 1, 1, 0.5, 0.5, 0.25]


def test_cosine_rises_over_the_warm_up_and_ends_at_zero():
    factors = [cosine_factor(step, 4, 20) for step in range(21)]
    assert factors[:4] == sorted(factors[:4])
    assert max(factors) == factors[4] == 1
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[20] == pytest.approx(0)
    assert factors[0] > 0


def test_step_lowers_the_rate_as_torch_steplr_does_and_every_group_by_the_same_factor():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 8.0)]
    rate = LrScheduler(
        Config(lr_scheduler="step", step_size=2, gamma=0.5), torch.optim.SGD(groups), 10
    )
    seen = []
    for _ in range(5):
        rate._optimizer.step()
        rate.step()  # within an epoch it stands still
        rate.step_epoch(1.0)
        seen.append((rate.lr, rate.lr_head))
    assert seen == [(1, 8), (0.5, 4), (0.5, 4), (0.25, 2), (0.25, 2)]


@pytest.mark.parametrize("schedule", ["plateau", "cosine", "step"])
def test_a_schedule_goes_on_from_its_state(schedule):
    config = Config(lr_scheduler=schedule, warmup_epochs=1, epochs=4, plateau_patience=0)
    if schedule == "step":
        config = Config(lr_scheduler=schedule, step_size=3, gamma=0.5)

    def drive(rate, epochs):
        values = []
        for epoch in epochs:
            for _ in range(3):
                rate._optimizer.step()
                rate.step()
            rate.step_epoch(1.0 + epoch)
            values.append(rate.lr)
        return values

    whole = drive(LrScheduler(config, optimizer(), 3), range(4))
    first = LrScheduler(config, optimizer(), 3)
    drive(first, range(2))
    second_optimizer = optimizer()
    second = LrScheduler(config, second_optimizer, 3)
    second_optimizer.load_state_dict(first._optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert drive(second, range(2, 4)) == pytest.approx(whole[2:])
