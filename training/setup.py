"""Everything a run needs before its first step: shards, split, model, optimizer, feeds.

Nothing is written here, so that whatever is wrong is said before a run folder exists.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..shards import splits
from ..shards.format import shard_set
from ..shards.format.shard_set import Manifest
from ..shards.loading.batch_sampler import BatchSampler
from ..shards.transforms.affine import Augmentation
from ..shards.transforms.clip_transform import ClipTransform
from .config import AUTO, Config, ConfigError
from .input import gpu_cache
from .input.device_loader import DeviceLoader
from .optim.ema import ModelEma
from .optim.metric_sums import MetricSums
from .optim.schedule import EarlyStopping, LrScheduler
from .runtime import device, distributed, memory, tensorboard
from .state import Log, TrainState, model_options

if TYPE_CHECKING:
    import torch
    from torch import nn


def prepare(
    config: Config, folder: Path, log: Log, ranks: distributed.DistributedContext | None = None
) -> TrainState:
    """Open the shards, split them, build model, optimizer and feeds. Writes nothing."""
    config = config.resolve()
    if config.tensorboard:
        tensorboard.check()
    ranks = ranks or distributed.DistributedContext()
    on = device.choose(config.device, ranks.local if ranks.count > 1 else None)
    precision = device.precision(config.precision, on)
    clips = shard_set.load(config.shards)
    split = _split(config, clips)
    _settle_random(config)
    model = _build(config, len(clips.classes))
    wanted = _preprocessing(config, model.transform)
    if config.sync_bn:
        model = _with_sync_bn(model)
    model = device.place(model, on, precision)
    task = memory.Task(config, model, wanted, clips.clip_shape, on, precision)
    if config.batch_size == AUTO:
        config, said = memory.settle_batch(task, len(split.train), ranks)
        log(said)
    if config.cache == "gpu":
        _check_cache(task, config, split, ranks)
    optimizer = _optimizer(config, model)
    share = config.batch_size // config.accumulate
    train = _train_feed(config, clips, split, wanted, on, ranks)
    trainer = TrainState(
        config=config,
        folder=folder,
        manifest=clips,
        split=split,
        model=model,
        parallel=ranks.wrap(model, on),
        ranks=ranks,
        preprocessing=wanted,
        optimizer=optimizer,
        rate=LrScheduler(config, optimizer, -(-train.steps // config.accumulate)),
        stop=EarlyStopping(config.patience, config.epsilon_increment, config.monitor == "val_loss"),
        class_weight=_class_weight(config, clips, split, on),
        average=ModelEma(model, config.ema) if config.ema else None,
        train=train,
        val=DeviceLoader(
            clips,
            BatchSampler(split.val, share, rank=ranks.rank, ranks=ranks.count),
            wanted,
            on,
            workers=config.workers,
            cache="gpu" if config.cache == "gpu" else "none",
        ),
        device=on,
        precision=precision,
        log=log,
        sums=MetricSums(on),
    )
    log(_introduce(trainer))
    return trainer


def _split(config: Config, clips: Manifest) -> splits.Split:
    """The split, with clips on every side."""
    split = splits.make(clips, config.split, config.split_seed)
    for side in ("val", "test"):
        if len(split.side(side)) == 0:
            raise ConfigError(
                f"split {config.split!r} leaves no {side} clip of {config.shards}: "
                "build a set with more groups, or use '--split paper'."
            )
    return split


def _check_cache(
    task: memory.Task, config: Config, split: splits.Split, ranks: distributed.DistributedContext
) -> None:
    """Refuse --cache gpu where the clips do not fit beside a training step."""
    needed = (len(split.train) + len(split.val)) * math.prod(task.stored)
    if task.device.type != "cuda":
        gpu_cache.check(task.device, needed, None)
    step = task.needs(config.batch_size // config.accumulate // ranks.count)
    room = memory.free(task.device)
    gpu_cache.check(task.device, needed, None if room is None else room - step)


def _with_sync_bn(model: nn.Module) -> nn.Module:
    from torch.nn import SyncBatchNorm

    return SyncBatchNorm.convert_sync_batchnorm(model)


def _train_feed(
    config: Config,
    clips: Manifest,
    split: splits.Split,
    wanted: ClipTransform,
    on: torch.device,
    ranks: distributed.DistributedContext,
) -> DeviceLoader:
    """The train side, shuffled and augmented."""
    share, window = config.batch_size // config.accumulate, config.shuffle_window
    ids = np.sort(split.train) if window else split.train  # a window wants neighbours on the disk
    return DeviceLoader(
        clips,
        BatchSampler(ids, share, config.seed, True, ranks.rank, ranks.count, window),
        wanted,
        on,
        rule=_rule(config),
        jitter=config.jitter,
        workers=config.workers,
        max_bad=config.max_bad,
        cache=config.cache,
    )


def _settle_random(config: Config) -> None:
    """Choose torch's algorithms. Weights have a seed of their own, dropout one for each step."""
    import torch

    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic  # shapes never change here


def _build(config: Config, classes: int) -> nn.Module:
    """The model; `--weights` goes to it as an option. A wrong option is a ConfigError."""
    from .. import models

    options = model_options(config)
    if "weights" in models.options_of(config.model):
        options["weights"] = config.weights
    elif config.weights != "none":
        raise ConfigError(
            f"--weights {config.weights!r}: there are no pretrained weights for {config.model}; "
            "use '--weights none' or another model."
        )
    try:
        return models.build(config.model, classes, seed=config.seed, **options)
    except models.WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def _preprocessing(config: Config, transform: ClipTransform) -> ClipTransform:
    """The model's own input, at another size where `--size` asks for it (resize in proportion)."""
    transform = dataclasses.replace(transform, frames=config.frames)
    if config.size is None:
        return transform
    (height, width), (crop_height, crop_width) = transform.resize_size, transform.crop_size
    return dataclasses.replace(
        transform,
        crop_size=(config.size, config.size),
        resize_size=(
            round(height * config.size / crop_height), round(width * config.size / crop_width)
        ),
    )  # fmt: skip


def _rule(config: Config) -> Augmentation | None:
    if not config.augment:
        return None
    return Augmentation(
        scale=(config.crop_scale, 1.0),
        rotation=config.degrees,
        hflip=config.flip,
        per_frame=config.per_frame,
        color=(config.brightness, config.contrast, config.saturation),
    )


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},  # norms, biases
    ]
    groups = [group for group in groups if group["params"]]
    assert config.lr is not None  # resolved
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, fused=True)


def _class_weight(
    config: Config, clips: Manifest, split: splits.Split, on: torch.device
) -> torch.Tensor | None:
    """n / (K * n_k) over the train side, float32 [K]: rare classes weigh more (section 3.4).

    A class without a train clip gets 0; it never occurs in the loss.
    """
    import torch

    if config.class_weights == "none":
        return None
    counts = np.bincount(clips.index["label"][split.train], minlength=len(clips.classes))
    weights = np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32, device=on)


def _introduce(trainer: TrainState) -> str:
    split, config = trainer.split, trainer.config
    leak = "no groups known" if split.leak is None else f"{split.leak:.1%} of test leaks from train"
    weights = getattr(trainer.model, "weights_info", None)
    lines = [
        f"{config.model}: {sum(p.numel() for p in trainer.model.parameters()):,} parameters, "
        f"{trainer.preprocessing.frames} frames of {trainer.preprocessing.crop_size[0]}x"
        f"{trainer.preprocessing.crop_size[1]}, {trainer.device}, "
        f"{str(trainer.precision).removeprefix('torch.')}",
        f"split {split.name} ({split.digest}): {len(split.train)} train, {len(split.val)} val, "
        f"{len(split.test)} test clips, {leak}",
    ]
    if weights is not None:
        lines.insert(1, f"weights {weights.path}, sha256 {weights.sha256}")
    if config.shuffle_window:
        plan = trainer.train.loader.plan
        lines.append(f"shuffle window {plan.window}: quality {plan.quality(1):.2f} of 1")
    return "\n".join(lines)
