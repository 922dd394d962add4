"""Run by torchrun in tests/test_distributed.py: train steps, then rank 0 saves what came out."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from har.training import loop, setup, step
from har.training.config import Config
from har.training.runtime import distributed


def main(shards: str, out: str, model: str, options: str) -> None:
    """Steps of SGD with batch norm in eval, which would see a share of the batch otherwise."""
    config = Config(
        model=model, model_options=options, shards=shards, frames=4, size=16, batch_size=6,
        optimizer="sgd", lr=0.05, precision="fp32", device="cpu", workers=1,
    ).resolve()  # fmt: skip
    with distributed.init_distributed("cpu") as ctx:
        state = setup.prepare(config, Path(out), lambda _: None, ctx)
        state.model.eval()
        for batch in state.train_loader.epoch(1):
            step.train_step(state, batch, update_weights=True)
        sums = ctx.all_reduce_metrics(state.train_metrics).compute()
        checked = loop.evaluate(
            state.model, state.val_loader.epoch(), state.device, state.precision, ctx
        )
        if ctx.is_main_process:
            torch.save({"model": state.model.state_dict(), "train": sums, "val": checked}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
