"""Progress of a long job: a bar with rate and time left on a terminal, plain lines elsewhere; and
what is said of an epoch at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from . import step_timer

T = TypeVar("T")
_PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal


def track(
    items: Iterable[T],
    *,
    total: int,
    what: str,
    unit: str = "step",
    note: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Yield `items`, showing how far they are on standard error. note: more to show on the bar."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(items, total=total, desc=what, unit=unit, leave=False) as bar:
            for item in bar:
                if note is not None:
                    bar.set_postfix_str(note(), refresh=False)
                yield item
        return
    start = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - told >= _PLAIN_EVERY:
            told = now
            rate = done / (now - start)
            left = (total - done) / rate
            print(
                f"{what}: {done}/{total}, {rate:.2f} {unit}s/s, {left:.0f} s left", file=sys.stderr
            )
        yield item


def describe(line: dict[str, Any]) -> str:
    """A line of metrics.jsonl, for the terminal and log.txt."""
    return (
        f"epoch {line['epoch']:3d}  train loss {line['train_loss']:.4f} acc {line['train_acc']:.4f}"
        f"  val loss {line['val_loss']:.4f} acc {line['val_acc']:.4f}  lr {line['lr']:.1e}"
        f"  {line['clips_per_s']:.1f} clips/s  {step_timer.limit(line)}"
    )


def diverged(line: dict[str, Any]) -> str:
    """Why a run whose epoch has a loss that is not finite stops."""
    where = f"the loss of epoch {line['epoch']} is not finite"
    if "bad_step" in line:
        where += f" from step {line['bad_step']} on (keys {', '.join(line['bad_keys'][:4])}, ...)"
    return f"{where}: try a lower --lr or --precision fp32; checkpoints are of the epochs before"
