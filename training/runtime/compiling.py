"""`--compile auto|on|off`: the model as `torch.compile` makes it, kept only where it gains.

Only the training step's forward and backward pass run compiled; evaluation, checkpoints and the
average use the model itself, whose state_dict knows nothing of it.

Odd:
- auto is off on the CPU without a trial. Convolutions, nearly all of a step there, run in the same
  library either way: resnet3d in bf16 gained 1.02x (4 clips of 16x112x112) and 1.03x (the demo's
  16 of 8x42x42, width 16) after 25 s of compiling, on one core of a shared machine.
- auto decides once, before the first step, on made-up clips, and the answer becomes the run's
  `compile` setting: a resumed run is compiled as it was, and not timed again.
- Random numbers fall back to eager's, so dropout draws the same with and without.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .. import step
from .distributed import DistributedContext

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..state import TrainState

WORTH_SECONDS = 600  # of training; a shorter run would not earn back a compile of about a minute
LEAST_GAIN = 1.05
_TOLERANCE = 0.2  # of the gradient's norm; bf16 with other fusions gives 0.05, garbage 1 and more
_TIMED = 5  # steps, of which the best counts


@dataclass(frozen=True)
class Trial:
    """What `choose` tries it on. clips: a made-up batch of the run's shape, on the device.

    steps: of the whole run.
    """

    clips: torch.Tensor
    precision: torch.dtype
    steps: int


def settle(trainer: TrainState) -> None:
    """Decide for a run, before its first step: set what the forward pass calls, and write the
    answer into the run's config, which a resumed run takes over."""
    config = trainer.config
    share = config.batch_size // config.accumulate // trainer.ranks.count

    def make() -> Trial:
        batch = step.random_clips(
            share, trainer.preprocessing.frames, trainer.preprocessing.crop_size, trainer.device
        )
        return Trial(batch, trainer.precision, config.epochs * trainer.train.steps)

    kept, why = False, ""
    if config.compile == "on" or (config.compile == "auto" and trainer.device.type == "cuda"):
        kept, why = choose(config.compile, trainer.model, make(), trainer.ranks)
        trainer.log(why)
    if kept:
        trainer.parallel = compiled(trainer.parallel)
    trainer.config = replace(config, compile="on" if kept else "off")


def choose(wanted: str, model: nn.Module, on: Trial, ranks: DistributedContext) -> tuple[bool, str]:
    """-> (whether to train `model` compiled, why, as a line for the log); alike on every rank.

    wanted: auto or on. model: in training mode; parameters, gradients and buffers are as
    before afterwards. A compiler that fails is a line, not an error: the run goes on without.
    """
    try:
        kept, why = _try(wanted, model, on, ranks)
    except Exception as error:  # a compiler fails in as many ways as it has parts
        first = str(error).strip().split("\n", 1)[0][:160]
        kept, why = False, f"not compiled, it fails here: {type(error).__name__}: {first}"
    everywhere = not ranks.any(int(not kept), on.clips.device)
    return everywhere, why


def compiled(module: nn.Module) -> nn.Module:
    """`module`, or DDP's wrapper of it, to be called in its place; the weights are the same."""
    import torch

    made: Any = torch.compile(module, options={"fallback_random": True})
    return made


def _try(wanted: str, model: nn.Module, on: Trial, ranks: DistributedContext) -> tuple[bool, str]:
    plain, before = _time(model, on)
    whole = ranks.from_first(plain * on.steps)  # one clock decides: ranks must not part ways
    if wanted == "auto" and whole < WORTH_SECONDS:
        return False, f"not compiled: {whole:.0f} s of training steps would not repay it"
    changed = compiled(model)
    start = time.perf_counter()
    step.dummy_step(changed, on.clips, on.precision)
    spent = time.perf_counter() - start
    fast, after = _time(changed, on)
    error = ranks.from_first(((after - before).norm() / before.norm()).item())
    gain = ranks.from_first(plain / fast)
    if not error <= _TOLERANCE:  # nan too
        return False, f"not compiled: its gradient is {error:.0%} off"
    said = f"{gain:.2f}x as fast a step, after {spent:.0f} s of compiling"
    if wanted == "auto" and gain < LEAST_GAIN:
        return False, f"not compiled: {said}"
    return True, f"compiled: {said}"


def _time(model: nn.Module, on: Trial) -> tuple[float, torch.Tensor]:
    """-> seconds of the best of some steps, and the gradient; one goes before."""
    import torch

    def settle() -> None:
        if on.clips.device.type == "cuda":
            torch.cuda.synchronize(on.clips.device)

    best, gradient = float("inf"), step.dummy_step(model, on.clips, on.precision)
    for _ in range(_TIMED):
        settle()
        start = time.perf_counter()
        gradient = step.dummy_step(model, on.clips, on.precision)
        settle()
        best = min(best, time.perf_counter() - start)
    return best, gradient
