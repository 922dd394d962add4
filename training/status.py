"""What a run says: while an epoch trains, at its end, and where the run cannot go on."""

import time
from typing import Any

from tqdm import tqdm

from .runtime import memory
from .runtime.step_timer import bottleneck
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


def diverged_reason(state: TrainState, line: dict[str, Any]) -> str:
    """Why a run whose epoch has a loss that is not finite, or that fp16 cannot hold, stops."""
    where = f"the loss of epoch {line['epoch']} is not finite"
    if state.loss_scaler.has_collapsed and "bad_step" not in line:
        where = f"the gradients of epoch {line['epoch']} overflow fp16 at every loss scale"
    if "bad_step" in line:
        where += f" from step {line['bad_step']} on (keys {', '.join(line['bad_keys'][:4])}, ...)"
    return f"{where}: try a lower --lr or --precision fp32; checkpoints are of the epochs before"


def explain_error(state: TrainState, error: BaseException) -> str | None:
    """The sentence for a full memory, a batch norm of one value or a compiler that fails; None for
    any other error."""
    config = state.config
    if "Expected more than 1 value per channel when training" in str(error):
        return (
            "batch norm has nothing to average in a forward pass of one clip whose maps are 1x1: "
            "use a larger --batch-size or --size, or fewer --grad-accum-steps or ranks."
        )
    if memory.is_out_of_memory(error):
        batch_size = config.batch_size // config.grad_accum_steps // state.ctx.world_size
        return memory.out_of_memory_message(
            config, batch_size, state.device, state.precision, state.folder
        )
    if config.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = str(error).strip().split("\n", 1)[0][:160]
        return f"--compile fails here ({type(error).__name__}: {reason}): leave it out."
    return None


def describe_epoch(line: dict[str, Any]) -> str:
    """A line of metrics.jsonl, for the terminal and log.txt."""
    val = "  no val"
    if "knn_acc" in line:  # of pretraining
        accs = {"temporal": line.get("train_temporal_acc"), "kNN": line["knn_acc"]}
        texts = [f"  {name} acc {acc:.4f}" for name, acc in accs.items() if acc is not None]
        val = f"{''.join(texts)}  spread {line['spread']:.3f}"
    elif line["val_loss"] is not None:
        val = f"  val loss {line['val_loss']:.4f} acc {line['val_acc']:.4f}"
    skipped = line.get("skipped_steps", 0)
    head = f" head {line['lr_head']:.1e}" if "lr_head" in line else ""
    return (
        f"epoch {line['epoch']:3d}  train loss {line['train_loss']:.4f} acc {line['train_acc']:.4f}"
        f"{val}  lr {line['lr']:.1e}{head}  {line['clips_per_s']:.1f} clips/s  {bottleneck(line)}"
        + (f"  {skipped} steps skipped: gradients overflowed fp16" if skipped else "")
    )
