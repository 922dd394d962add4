"""The time of a step, split: by made-up events, by the host's clock, and in a real run's lines."""

import os
import time

import pytest
import torch
from tiny_train import metrics_of, train

from har.shards.loading.batch_builder import BatchBuilder
from har.training.runtime import step_timer
from har.training.runtime.step_timer import CopyEvents, StepTimer


class Event:
    """A CUDA event that happens at `at` milliseconds, once `Event.now` is past it."""

    now = 0.0

    def __init__(self, at):
        self.at = at

    def query(self):
        return Event.now >= self.at

    def synchronize(self):
        Event.now = max(Event.now, self.at)

    def elapsed_time(self, other):
        return other.at - self.at


def copy_events(*times):
    return CopyEvents(*map(Event, times))


@pytest.mark.parametrize(
    ("times", "data", "copy"),
    [
        ((-3, -2, -1, 0.0), 0, 0),  # all beside the step before: the gap is nothing
        ((2, 3, 4, 4), 2, 1),  # 2 s until the copy starts, 1 of copy, 1 of augmentation
        ((-1, 1, 3, 3), 0, 1),  # half the copy lay beside the step before
        ((-5, -4, 2, 2), 0, 0),  # only augmentation is left
        ((-5, -4, -3, 0.5), 0.5, 0),  # ready, and the host came late
    ],
)
def test_a_gap_is_waiting_but_for_the_copy_and_the_augmentation_in_it(times, data, copy):
    assert step_timer.split_gap(*times) == pytest.approx((data, copy))


def test_events_are_read_only_when_they_have_happened():
    Event.now = 0.0
    timer = StepTimer()
    timer.add(0.0, copy_events(0, 1000, 2000, 2000, 2000))
    timer.add(0.0, copy_events(3000, 3500, 3600, 3600, 3600))
    assert timer.totals() == (0.0, 0.0)
    assert timer.flush() == pytest.approx((1.0 + 0.5, 1.0 + 0.1))
    assert Event.now == 3600


def test_without_events_the_hosts_waits_count():
    timer = StepTimer()
    for _ in range(4):
        timer.add(0.5, None)
    assert timer.flush() == (2.0, 0.0)


@pytest.mark.parametrize(
    ("waited", "moved", "said"),
    [(0.05, 0.0, "compute limits"), (0.5, 0.2, "data limits"), (0.1, 0.4, "transfer limits")],
)
def test_the_side_that_is_waited_for_limits(waited, moved, said):
    line = step_timer.time_shares(waited, moved, 1.0)
    assert sum(line.values()) == pytest.approx(1)
    assert said in step_timer.bottleneck(line)


def test_a_slow_reader_shows_as_waiting_for_data(shards, tmp_path, monkeypatch):
    real = BatchBuilder.fill_row

    def slow(*arguments):
        time.sleep(0.05)
        real(*arguments)

    monkeypatch.setattr(BatchBuilder, "fill_row", slow)
    result = train(shards, tmp_path / "run", "--workers", 0)
    assert result.exit_code == 0, result.output
    for line in metrics_of(tmp_path / "run"):  # 18 clips, so 0.9 s at least, whatever else it does
        assert line["h2d"] == 0
        assert line["data_wait"] + line["compute"] == pytest.approx(1)
        assert line["data_wait"] * line["seconds"] >= 0.85
    assert result.output.count(step_timer.bottleneck(line)) >= 1


def test_cuda_measures_a_copy_that_the_step_waits_for():
    if not torch.cuda.is_available():
        missing = pytest.fail if os.environ.get("HAR_REQUIRE_CUDA") == "1" else pytest.skip
        missing("needs a GPU")
    events = [torch.cuda.Event(enable_timing=True) for _ in range(5)]
    made = CopyEvents(*events)
    stream, side = torch.cuda.current_stream(), torch.cuda.Stream()
    source = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
    made.step_end.record(stream)
    with torch.cuda.stream(side):
        made.copy_start.record(side)
        source.to("cuda", non_blocking=True)
        made.copy_end.record(side)
        made.ready.record(side)
    stream.wait_event(made.ready)
    made.step_start.record(stream)
    torch.cuda.synchronize()
    data, copy = made.gap()
    assert copy > 0.002  # 268 MB at 128 GB/s at most
    assert data < copy
