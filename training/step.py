"""One training step: forward pass, loss, backward pass, optimizer, metrics.

Notes:
- The loss that trains is weighted by class (paper, section 3.4); every loss that is reported, for
  train, val and test, is not, so that they can be compared.
- The last batch of an epoch is padded to full size (`har.shards.loading.batch_sampler`); padding
  has weight 0 in loss and metrics.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..shards.transforms import mixup
from .input.device_loader import DeviceBatch
from .optim.metric_sums import MetricSums
from .state import TrainState


def train_step(trainer: TrainState, batch: DeviceBatch, last: bool) -> torch.Tensor:
    """One batch; -> its loss, on the device. The loss is the paper's: cross entropy with class
    weights, reduction "mean". With accumulation only the `last` batch of a step moves the weights.

    Dropout is a pure function of (seed, epoch, step, rank), like order and augmentation, so that a
    resumed run needs no random state.
    """
    config, ranks = trainer.config, trainer.ranks
    place = (config.seed, trainer.position.epoch, batch.step, ranks.rank)
    torch.manual_seed(np.random.SeedSequence(place).generate_state(1)[0])
    clips, wanted = _mixed(trainer, batch)
    logits = forward(trainer.parallel, clips, trainer.precision)  # [b,K] float32
    losses = F.cross_entropy(logits, wanted, reduction="none")  # [b]
    weight = batch.valid.float()  # [b]
    if trainer.class_weight is not None:
        weight = weight * trainer.class_weight[batch.labels]
    smooth = losses
    if config.label_smoothing:
        smooth = F.cross_entropy(
            logits, wanted, reduction="none", label_smoothing=config.label_smoothing
        )
    # over the global batch: DDP divides by the ranks what each of them adds
    loss = (smooth * weight).sum() / ranks.add(weight.sum()) * ranks.count
    (loss / config.accumulate).backward()
    if last:
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), config.clip_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.rate.after_step()
        if trainer.average is not None:
            trainer.average.update(trainer.model)
    update_metrics(trainer.sums, logits, losses, batch)
    return loss.detach()


def _mixed(trainer: TrainState, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """-> clips and what they should give: labels int64 [b], or shares float32 [b,K] when mixed."""
    config = trainer.config
    if config.mix == "none":
        return batch.clips, batch.labels
    drawn = mixup.draw(
        config.mix, config.mix_alpha, seed=config.seed, epoch=trainer.position.epoch,
        keys=batch.keys, size=trainer.preprocessing.crop_size,
    )  # fmt: skip
    classes = len(trainer.manifest.classes)
    return mixup.apply(batch.clips, drawn), mixup.targets(batch.labels, drawn, classes)


def forward(model: nn.Module, clips: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """Clips [b,C,T,h,w] -> float32 logits [b,K], under autocast unless `precision` is float32."""
    enabled = precision != torch.float32
    with torch.autocast(clips.device.type, dtype=torch.bfloat16, enabled=enabled):
        logits = model(clips)
    return logits.float()


def update_metrics(
    sums: MetricSums, logits: torch.Tensor, losses: torch.Tensor, batch: DeviceBatch
) -> None:
    """Add the batch's valid rows to the running sums, without waiting for the device."""
    hits = (logits.argmax(1) == batch.labels) & batch.valid
    sums.update((losses * batch.valid).sum(), hits.sum(), batch.valid.sum())


def random_clips(
    count: int, frames: int, size: tuple[int, int], device: torch.device
) -> torch.Tensor:
    """Noise in the shape and layout of a batch: float32 [count,3,T,h,w]."""
    shape = (count, 3, frames, *size)
    return torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last_3d)


def dummy_step(model: nn.Module, clips: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """Forward and backward pass of `clips` [b,C,T,h,w] -> the gradient of all parameters, [P].

    Leaves nothing behind: no gradients, the weights and batch norm's statistics as they were.
    """
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        torch.manual_seed(0)  # dropout
        logits = forward(model, clips, precision)  # [b,K]
        labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
        F.cross_entropy(logits, labels).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(value)
