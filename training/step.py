"""One training step: forward pass, loss, backward pass, optimizer, metrics.

Notes:
- The loss that trains is weighted by class (paper, section 3.4); every loss that is reported, for
  train, val and test, is not, so that they can be compared.
- The last batch of an epoch is padded to full size (`har.shards.loading`); padding has weight 0 in
  loss and metrics.
- With gradient accumulation the gradients of a group of batches are added up and divided once, by
  the weights of the group's valid clips: the last group of an epoch may be shorter than the others.
"""

from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..shards.transforms import mixup
from .input import DeviceBatch
from .optim import MetricSums
from .state import ClipLosses, Task, TrainState


def train_step(state: TrainState, batch: DeviceBatch, update_weights: bool) -> torch.Tensor:
    """One batch; -> its loss, on the device. With gradient accumulation only the last batch of a
    group has `update_weights`; ranks exchange their gradients there and nowhere else.

    Dropout is a pure function of (seed, epoch, step, rank), like order and augmentation, so that a
    resumed run needs no random state.
    """
    config = state.config
    seed = (config.seed, state.progress.epoch, batch.step, state.ctx.rank)
    torch.manual_seed(np.random.SeedSequence(seed).generate_state(1)[0])
    with nullcontext() if update_weights else state.ctx.no_sync(state.ddp_model):
        clip_losses = state.task.losses(state, batch)
        loss = weighted_mean(state, clip_losses)
        state.loss_scaler.backward(loss)
    if update_weights:
        if config.grad_accum_steps > 1:
            divide_gradients(state)
        step_optimizer(state)
    update_metrics(state.train_metrics, clip_losses)
    return loss.detach()


def step_optimizer(state: TrainState) -> None:
    """Update weights, learning rate and average; a step whose gradients overflow fp16 leaves all
    three as they are and is counted."""
    is_done = state.loss_scaler.step(
        state.optimizer, state.model.parameters(), state.config.clip_grad
    )
    state.optimizer.zero_grad(set_to_none=True)
    if not is_done:
        state.progress.skipped_steps += 1
        return
    state.lr_scheduler.step()
    if state.ema is not None:
        state.ema.update(state.model)


def mix_batch(state: TrainState, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """-> clips and targets: labels int64 [b], or with mixup or CutMix shares float32 [b,K]."""
    config = state.config
    alpha = config.mixup_alpha or config.cutmix_alpha
    if not alpha:
        return batch.clips, batch.labels
    mix = mixup.draw(
        "mixup" if config.mixup_alpha else "cutmix", alpha, seed=config.seed,
        epoch=state.progress.epoch, keys=batch.keys, size=state.transform.crop_size,
    )  # fmt: skip
    num_classes = len(state.manifest.classes)
    return mixup.apply(batch.clips, mix), mixup.targets(batch.labels, mix, num_classes)


def forward(model: nn.Module, clips: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """Clips [b,C,T,h,w] -> float32 logits [b,K], under autocast unless `precision` is float32."""
    enabled = precision != torch.float32
    dtype = precision if enabled else None
    with torch.autocast(clips.device.type, dtype=dtype, enabled=enabled):
        logits = model(clips)
    return logits.float()


def classification_losses(state: TrainState, batch: DeviceBatch) -> ClipLosses:
    """Cross entropy, to be trained with class weights and label smoothing."""
    clips, targets = mix_batch(state, batch)
    logits = forward(state.ddp_model, clips, state.precision)  # [b,K] float32
    reported = score(logits, targets, batch.valid)
    weights, smoothing = reported.weights, state.config.label_smoothing
    losses, is_mixed = reported.losses, targets.dim() == 2
    if state.class_weights is not None:
        shares = state.class_weights[batch.labels]
        if is_mixed:  # each share of a mixed clip by the weight of its own class
            targets = targets * state.class_weights
            shares = targets.sum(1)
            targets = targets / shares[:, None]
        weights = weights * shares
    if smoothing or (is_mixed and state.class_weights is not None):
        losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    return reported._replace(losses=losses, weights=weights)


CLASSIFICATION = Task(classification_losses)


def weighted_mean(state: TrainState, clips: ClipLosses) -> torch.Tensor:
    """The loss that trains, "mean" over the global batch.

    With gradient accumulation it is the sum over this rank's b clips divided by b, and
    `divide_gradients` makes the mean over the group.
    """
    losses, weights = clips.losses, clips.weights
    if state.config.grad_accum_steps > 1:
        state.group_weight += weights.sum() / len(weights)
        return (losses * weights).sum() / len(weights)
    # DDP divides by the ranks what each of them adds
    total = state.ctx.all_reduce_sum(weights.sum())
    return (losses * weights).sum() / total * state.ctx.world_size


def divide_gradients(state: TrainState) -> None:
    """The group's added gradients -> those of the mean over its valid clips, on all ranks."""
    factor = state.ctx.world_size / state.ctx.all_reduce_sum(state.group_weight)
    for parameter in state.model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
    state.group_weight.zero_()


def score(logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor) -> ClipLosses:
    """Cross entropy [b] and hits of logits [b,K], all valid clips alike.

    targets: labels [b], or of mixed clips shares [b,K]. A mixed clip counts as correct by the share
    of the predicted class in it.
    """
    losses = F.cross_entropy(logits, targets, reduction="none")  # [b]
    predicted = logits.argmax(1)  # [b]
    if targets.dim() == 1:
        correct = predicted == targets
    else:
        correct = targets.gather(1, predicted[:, None])[:, 0]
    return ClipLosses(losses, valid.float(), losses, correct, valid)


def update_metrics(metrics: MetricSums, clips: ClipLosses) -> None:
    """Add the valid clips to the running sums, without waiting for the device."""
    valid = clips.valid
    sums = [(values * valid).sum() for values in (clips.reported, clips.correct, *clips.further)]
    metrics.update(sums[0], sums[1], valid.sum(), *sums[2:])


def random_clips(
    count: int, frames: int, size: tuple[int, int], device: torch.device
) -> torch.Tensor:
    """Noise in the shape and layout of a batch: float32 [count,3,T,h,w]."""
    clips = torch.randn((count, 3, frames, *size), device=device)
    return clips.contiguous(memory_format=torch.channels_last_3d)


def dummy_step(model: nn.Module, clips: torch.Tensor, precision: torch.dtype) -> None:
    """A forward and backward pass that leaves weights, gradients and buffers as they were."""
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        forward(model, clips, precision).logsumexp(1).sum().backward()
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(value)
