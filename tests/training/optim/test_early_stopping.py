"""Early stop and best epoch on made-up metric sequences (paper, sections 4 and 8)."""

import math

import pytest

from har.training.optim import BestEpoch, EarlyStopping


@pytest.mark.parametrize(
    ("values", "options", "stop"),
    [
        ([1.0, 0.5, 0.6, 0.6, 0.1], {}, 4),  # patience counts epochs without improvement
        ([1.0, 0.995, 0.992], {}, 3),  # less than the percentage does not count
        ([1.0, 0.985, 0.975, 0.96], {}, None),
        ([1.0, 0.995, 0.985, 0.98, 0.97], {}, None),  # small steps add up from the reference
        ([0.5, 0.6, 0.6, 0.59], {"lower_is_better": False}, 4),  # accuracy counts upwards
        ([0.5, 0.6, 0.7, 0.8], {"lower_is_better": False}, None),
        ([1.0, math.nan, math.inf], {}, 3),  # what is not finite never improves
        ([math.nan, 1.0, 0.5], {}, None),
        ([1.0, 0.999, 0.998], {"percent": 0.0}, None),  # zero takes any improvement and no tie
        ([1.0, 1.0, 1.0], {"percent": 0.0}, 3),
    ],
)
def test_stops_after_patience_epochs_without_improvement(values, options, stop):
    rule = EarlyStopping(**{"percent": 1.0, "lower_is_better": True} | options)
    stops = []
    for n, value in enumerate(values, 1):
        rule.update(value)
        stops += [n] * (rule.num_bad_epochs == 2)
    assert (stops or [None])[0] == stop


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
