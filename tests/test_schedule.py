"""Early stop and best epoch on made-up metric sequences (paper, sections 4 and 8)."""

import math

import pytest

from training.schedule import Best, EarlyStop


def stops_at(values, **options):
    rule = EarlyStop(**{"patience": 2, "percent": 1.0, "lower_is_better": True} | options)
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
    rule = Best()
    for epoch, (accuracy, loss) in enumerate(sequence, 1):
        rule.update(epoch, accuracy, loss)
    assert rule.epoch == best
