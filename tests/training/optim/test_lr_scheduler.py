"""Early stop and best epoch on made-up metric sequences (paper, sections 4 and 8)."""

import math

import pytest
import torch

from har.training.config import Config
from har.training.optim import BestEpoch, EarlyStopping, LrScheduler
from har.training.optim.lr_scheduler import cosine_factor


def stops_at(values, **options):
    rule = EarlyStopping(**{"patience": 2, "percent": 1.0, "lower_is_better": True} | options)
    return next((n for n, value in enumerate(values, 1) if rule.update(value)), None)


def test_stops_after_patience_epochs_without_improvement():
    assert stops_at([1.0, 0.5, 0.6, 0.6, 0.1]) == 4


def test_an_improvement_below_the_percentage_does_not_count():
    assert stops_at([1.0, 0.995, 0.992]) == 3
    assert stops_at([1.0, 0.985, 0.975, 0.96]) is None


def test_small_steps_add_up_against_the_last_reference():
    assert stops_at([1.0, 0.995, 0.985, 0.98, 0.97]) is None


def test_accuracy_counts_upwards():
    assert stops_at([0.5, 0.6, 0.6, 0.59], lower_is_better=False) == 4
    assert stops_at([0.5, 0.6, 0.7, 0.8], lower_is_better=False) is None


def test_a_value_that_is_not_finite_never_improves():
    assert stops_at([1.0, math.nan, math.inf]) == 3
    assert stops_at([math.nan, 1.0, 0.5]) is None


def test_zero_percent_takes_any_improvement_and_no_tie():
    assert stops_at([1.0, 0.999, 0.998], percent=0.0) is None
    assert stops_at([1.0, 1.0, 1.0], percent=0.0) == 3


@pytest.mark.parametrize(
    ("sequence", "best"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 2),  # accuracy decides
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),  # loss breaks a tie
        ([(0.5, 1.0), (0.5, 1.0)], 1),  # the earlier of equals
    ],
)
def test_best_epoch(sequence, best):
    rule = BestEpoch()
    for epoch, (accuracy, loss) in enumerate(sequence, 1):
        rule.update(epoch, accuracy, loss)
    assert rule.epoch == best


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


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_a_schedule_goes_on_from_its_state(schedule):
    config = Config(lr_scheduler=schedule, warmup_epochs=1, epochs=4, plateau_patience=0)

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
