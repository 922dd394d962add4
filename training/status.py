"""What is shown of an epoch while it trains: loss, learning rate, speed and the time left."""

import time

from tqdm import tqdm

from .state import TrainState


class EpochStatus:
    """Called for each line (`har.progress`) with the steps done in this session: -> its text.

    Loss and clips/s are those since the line before, of several ranks this one's loss. What is left
    of the run is at most that: patience may end it. It reads the running sums, which waits for the
    device: once a line.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._start = self._last_time = time.perf_counter()
        self._first_step, self._seconds_before = state.progress.step, state.progress.seconds
        self._last_sums = state.train_metrics.sums.tolist()

    def __call__(self, num_steps: int) -> str:
        state, now = self._state, time.perf_counter()
        sums = state.train_metrics.sums.tolist()
        loss, _, count, *_ = (a - b for a, b in zip(sums, self._last_sums, strict=True))
        speed = count * state.ctx.world_size / (now - self._last_time)
        self._last_sums, self._last_time = sums, now
        count = max(count, 1.0)  # 0 where a display comes without a step
        left = tqdm.format_interval(self._seconds_left(num_steps, now - self._start))
        return (
            f"loss {loss / count:.4f} lr {state.lr_scheduler.lr:.1e} {speed:.1f} clips/s, "
            f"run {left} left, {state.data_wait():.0%} data wait"
        )

    def _seconds_left(self, num_steps: int, seconds: float) -> float:
        """Of the whole run, should it end by `epochs` or `max_minutes`. seconds: of the steps."""
        state, config = self._state, self._state.config
        num_batches, step_seconds = state.train_loader.num_batches, seconds / num_steps
        # an epoch that is done tells what validation takes, too
        epoch = state.history[-1]["seconds"] if state.history else num_batches * step_seconds
        this_epoch = (num_batches - self._first_step - num_steps) * step_seconds
        left = this_epoch + (config.epochs - state.progress.epoch) * epoch
        if config.max_minutes:
            spent = self._seconds_before + seconds
            left = min(left, max(this_epoch, config.max_minutes * 60 - spent))
        return float(left)
