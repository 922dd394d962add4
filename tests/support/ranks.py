"""Run by torchrun in `test_distributed.py`: an epoch, then rank 0 saves what came out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from har.training import loop, setup, step
from har.training.config import Config
from har.training.runtime import distributed
from har.training.runtime.signals import SignalWatch
from har.training.state import TrainState

SETTINGS = {
    "frames": 4, "size": 16, "batch_size": 6, "optimizer": "sgd", "lr": 0.05, "precision": "fp32",
    "device": "cpu", "workers": 1,
}  # fmt: skip


def main(shards: str, out: str, settings: str) -> None:
    """settings: of the config, as JSON. `frozen_norms`: steps with batch norm in eval, which sees a
    share of the batch otherwise; without, `train_epoch` as it is."""
    given = json.loads(settings)
    frozen_norms = given.pop("frozen_norms", False)
    config = Config(shards=shards, **{**SETTINGS, **given}).resolve()
    with distributed.init_distributed("cpu") as ctx:
        state = setup.prepare(config, Path(out), lambda _: None, ctx)
        exchanges: list[int] = []
        if ctx.world_size > 1:
            state.ddp_model.register_comm_hook(  # type: ignore[operator]
                None, lambda group, bucket: exchanges.append(1) or allreduce_hook(group, bucket)
            )
        result = run_frozen(state) if frozen_norms else {}
        if not frozen_norms:
            line = loop.train_epoch(state, SignalWatch())
            result = {"val": {"loss": line["val_loss"], "acc": line["val_acc"]}}
        buffers = [dict(state.eval_model.named_buffers())]
        if ctx.world_size > 1:
            buffers = [None] * ctx.world_size  # type: ignore[list-item]
            dist.all_gather_object(buffers, dict(state.eval_model.named_buffers()))
        if ctx.is_main_process:
            result |= {"model": state.model.state_dict(), "buffers": buffers}
            result |= {"eval_model": state.eval_model.state_dict(), "exchanges": len(exchanges)}
            torch.save(result, out)


def run_frozen(state: TrainState) -> dict[str, dict[str, float]]:
    """An epoch of steps with batch norm in eval mode, and an evaluation."""
    state.model.eval()
    accum, last = state.config.grad_accum_steps, state.train_loader.num_batches - 1
    for batch in state.train_loader.epoch(1):
        update = (batch.step + 1) % accum == 0 or batch.step == last
        step.train_step(state, batch, update_weights=update)
    sums = state.ctx.all_reduce_metrics(state.train_metrics).compute()
    checked = loop.evaluate(
        state.model, state.val_loader.epoch(), state.device, state.precision, state.ctx
    )
    return {"train": sums, "val": checked}


if __name__ == "__main__":
    main(*sys.argv[1:])
