"""Everything a run needs before its first step: shards, split, model, optimizer, loaders.

Nothing is written here, so that whatever is wrong is reported before a run folder exists.
"""

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from .. import models
from ..models.convlstm import ConvLSTM
from ..shards import splits
from ..shards.format import Manifest, load_manifest
from ..shards.loading import BatchSampler, LoaderOptions
from ..shards.transforms.affine import Augmentation
from ..shards.transforms.clip_transform import ClipTransform
from ..shards.transforms.temporal_sampling import auto_strides, eval_stride
from .config import AUTO, Config, ConfigError
from .input import DeviceLoader, gpu_cache
from .machine import check_device, choose_recompute, resolve_machine
from .network import (
    build_model,
    check_pretraining,
    describe_other_options,
    describe_seen_clips,
    known_options,
    left_out,
    list_parent_data,
    model_options,
)
from .optim import EarlyStopping, LossScaler, LrScheduler, ModelEma, make_optimizer
from .runtime import memory, tensorboard
from .runtime.device import place_model
from .runtime.distributed import DistributedContext
from .runtime.precision import DTYPES
from .state import Log, Task, TrainState
from .step import CLASSIFICATION, dummy_step, random_clips


def prepare(
    config: Config,
    folder: Path,
    log: Log,
    ctx: DistributedContext | None = None,
    *,
    resumed: bool = False,
    task: Task = CLASSIFICATION,
) -> TrainState:
    """Open the shards, split them, build model, optimizer and loaders. Writes nothing.

    resumed: weights of a checkpoint will follow, so `--weights` is not read again.
    """
    if not resumed:
        config.check_new()
    config, ctx = config.resolve(), ctx or DistributedContext()
    if config.tensorboard:
        tensorboard.check_installed()
    config, device = resolve_machine(config, log, ctx)
    precision = DTYPES[config.precision]
    manifest = load_manifest(config.shards)
    split = make_split(config, manifest, task.num_classes)
    config = fit_frame_stride(config, manifest)
    # Weights have a seed of their own, order, augmentation and dropout one for each step.
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic  # shapes never change here
    options = model_options(config)
    model, transform = make_model(config, options, manifest, split, resumed=resumed)
    if not models.is_custom(config.model):  # the config says what the network has
        names = {"dropout", "drop_path", "input"} & config.options.keys()
        config = replace(config, **{name: options[name] for name in names})
    task.adapt_model(model)
    device = check_device(config, model, device, functools.partial(make_optimizer, config), log)
    model = place_model(model, device, precision)
    cache_bytes = gpu_cache_bytes(config, task, manifest, split, device)
    if config.batch_size == AUTO:
        trial = make_trial(config, task, model, transform, device, precision, cache_bytes)
        config = replace(config, batch_size=trial.find(len(split.train), ctx))
        log(f"--batch-size auto: {config.batch_size}")
    elif isinstance(model, ConvLSTM) and config.recompute == "auto" and "recompute" not in options:
        options["recompute"] = choose_recompute(config, model, transform, device, ctx)
    check_batch(config, ctx, resumed=resumed)
    if config.sync_bn:
        model = convert_norms(model, device, ctx)
    optimizer = make_optimizer(config, model)
    train_loader, val_loader = make_loaders(config, task, manifest, split, transform, device, ctx)
    state = TrainState(
        task=task, config=config, folder=folder, manifest=manifest, split=split, model=model,
        model_options={**known_options(config), **options},
        ddp_model=wrap_model(config, model, device, ctx),
        ctx=ctx, transform=transform, optimizer=optimizer,
        loss_scaler=LossScaler(precision, device),
        lr_scheduler=LrScheduler(config, optimizer, train_loader.num_batches),
        early_stopping=EarlyStopping(config.epsilon_increment, config.monitor == "val_loss"),
        class_weights=class_weights(config, manifest, split, device),
        ema=ModelEma(model, config.ema_decay) if config.ema_decay else None,
        train_loader=train_loader, val_loader=val_loader, device=device, precision=precision,
        log=log, parent_data=list_parent_data(model),
    )  # fmt: skip
    log(describe(state))
    return state


def make_model(
    config: Config,
    options: dict[str, Any],
    manifest: Manifest,
    split: splits.Split,
    *,
    resumed: bool,
) -> tuple[nn.Module, ClipTransform]:
    """The model, from `--weights` unless it is resumed, and its input; both fit the run.

    Raises CustomModelError where a user's model fails on 2 clips of the run's size.
    """
    num_classes = len(manifest.classes)
    model = build_model(config, options, num_classes, resumed=resumed)
    check_pretraining(config, model, manifest, split)
    transform = make_transform(config, models.transform_of(model))
    if models.is_custom(config.model):
        clips = random_clips(2, transform.frames, transform.crop_size, torch.device("cpu"))
        models.check_forward(model, config.model, num_classes, clips)
    return model, transform


def check_batch(config: Config, ctx: DistributedContext, *, resumed: bool) -> None:
    """Raise ConfigError where the clips of a forward pass do not divide among the ranks, or are too
    few to be mixed; an old run in which nothing was mixed may be resumed."""
    assert config.batch_size != AUTO
    clips, ranks = config.batch_size // config.grad_accum_steps, ctx.world_size
    part = f"--batch-size {config.batch_size}"
    if config.grad_accum_steps > 1:
        part += f" in --grad-accum-steps {config.grad_accum_steps} parts"
    if clips % ranks:
        raise ConfigError(
            f"{part} makes {clips} clips a forward pass, which do not divide among {ranks} ranks: "
            f"give a --batch-size that is a multiple of {ranks * config.grad_accum_steps}."
        )
    if clips == ranks and (config.mixup_alpha or config.cutmix_alpha) and not resumed:
        raise ConfigError(
            f"{part} makes one clip a forward pass{' and rank' if ranks > 1 else ''}, and mixup "
            "and CutMix need two: give a larger --batch-size (where memory is short, with a "
            "smaller --size or fewer --frames), or leave them out."
        )


def convert_norms(model: nn.Module, device: torch.device, ctx: DistributedContext) -> nn.Module:
    """The model with batch norm over all ranks. Raises ConfigError for several ranks on the CPU,
    where torch has none."""
    if device.type == "cpu" and ctx.world_size > 1:
        raise ConfigError(
            f"--sync-bn works on GPUs, and these {ctx.world_size} ranks are on the CPU: leave it "
            "out, or start one process."
        )
    return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))


def wrap_model(
    config: Config, model: nn.Module, device: torch.device, ctx: DistributedContext
) -> nn.Module:
    """The model as the training step calls it: DDP's with several ranks, compiled by --compile."""
    ddp_model = ctx.wrap_model(model, device)
    if not config.compile:
        return ddp_model
    # with the random numbers of eager mode, so that dropout draws the same
    return cast(nn.Module, torch.compile(ddp_model, options={"fallback_random": True}))


def make_split(config: Config, manifest: Manifest, num_classes: int = 2) -> splits.Split:
    """The split, with train clips of `num_classes` classes or more."""
    split = splits.make_split(manifest, config.split, config.split_seed, config.val_from_train)
    labels = np.unique(manifest.index["label"][split.train])
    if len(labels) < num_classes:
        raise ConfigError(
            f"all {len(split.train)} train clips of split {config.split!r} of {config.shards} are "
            f"of class {manifest.classes[labels[0]]!r}, so there is nothing to learn: choose "
            "another --split, or build a set with clips of two classes or more to train on."
        )
    return split


def fit_frame_stride(config: Config, manifest: Manifest) -> Config:
    """The config with --frame-stride auto replaced by what the stored clips allow."""
    if config.frame_stride != "auto":
        return config
    strides = auto_strides(manifest.clip_shape[0], config.frames)
    text = "even" if strides is None else f"{strides[0]}-{strides[1]}"
    return replace(config, frame_stride=text)


def gpu_cache_bytes(
    config: Config, task: Task, manifest: Manifest, split: splits.Split, device: torch.device
) -> int:
    """Bytes of the clips that --cache gpu keeps, which must fit; 0 without it."""
    if config.cache != "gpu":
        return 0
    num_clips = len(split.train) + (len(split.val) if task.has_val else 0)
    num_bytes = num_clips * math.prod(manifest.clip_shape)
    gpu_cache.check_fits(device, num_bytes, memory.free_bytes(device))
    return num_bytes


def make_transform(config: Config, transform: ClipTransform) -> ClipTransform:
    """The model's own, at another size where `--size` asks for it (resize in proportion)."""
    stride = eval_stride(config.frame_strides)
    transform = replace(transform, frames=config.frames, frame_stride=stride)
    if config.size is None:
        return transform
    height, width = (
        round(resize * config.size / crop)
        for resize, crop in zip(transform.resize_size, transform.crop_size, strict=True)
    )
    size = (config.size, config.size)
    return replace(transform, crop_size=size, resize_size=(height, width))


def make_trial(
    config: Config,
    task: Task,
    model: nn.Module,
    transform: ClipTransform,
    device: torch.device,
    precision: torch.dtype,
    cache_bytes: int,
) -> memory.BatchTrial:
    """Training steps on noise, for --batch-size auto. cache_bytes: of --cache gpu."""

    def step(clips: int) -> None:
        batch = random_clips(task.views * clips, transform.frames, transform.crop_size, device)
        dummy_step(model, batch, precision)

    weight_bytes = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    copies = (1 if config.optimizer == "sgd" else 2) + bool(config.ema_decay)
    batch_copies = 8 if device.type == "cpu" else 5  # buffers of both loaders, copies under way
    view_bytes = 4 * 3 * transform.frames * math.prod(transform.crop_size)
    clip_bytes = batch_copies * task.views * view_bytes
    return memory.BatchTrial(
        step, device, weight_bytes, copies * weight_bytes + cache_bytes, clip_bytes
    )


def make_augmentation(config: Config) -> Augmentation | None:
    if not config.augment:
        return None
    return Augmentation(
        scale=(config.crop_scale, 1.0),
        rotation=config.rotation,
        hflip=config.hflip,
        per_frame=config.per_frame,
        color=(config.brightness, config.contrast, config.saturation),
        rand_augment=config.rand_augment,
    )


def make_loaders(
    config: Config,
    task: Task,
    manifest: Manifest,
    split: splits.Split,
    transform: ClipTransform,
    device: torch.device,
    ctx: DistributedContext,
) -> tuple[DeviceLoader, DeviceLoader | None]:
    """(the train subset, shuffled and augmented; the validation subset in order, if any)."""
    batch_size = config.batch_size // config.grad_accum_steps  # of one forward pass, all ranks
    block_size, on_gpu = config.shuffle_block_size, config.cache == "gpu"
    indices = np.sort(split.train) if block_size else split.train  # blocks are neighbours on disk
    train_sampler = BatchSampler(
        indices, task.views * batch_size, config.seed, True, ctx.rank, ctx.world_size, block_size,
        task.views,
    )  # fmt: skip
    train_options = LoaderOptions(
        frame_stride=config.frame_strides,
        temporal_jitter=config.temporal_jitter or config.frame_strides is not None,
        windows=task.windows,
        workers=config.workers,
        max_corrupt=config.max_corrupt,
        cache="none" if on_gpu else config.cache,
    )
    train_loader = DeviceLoader(
        manifest, train_sampler, transform, device, train_options,
        augmentation=make_augmentation(config), gpu_cache=on_gpu,
    )  # fmt: skip
    if len(split.val) == 0 or not task.has_val:
        return train_loader, None
    val_sampler = BatchSampler(split.val, batch_size, rank=ctx.rank, world_size=ctx.world_size)
    val_options = LoaderOptions(workers=config.workers, cache=train_options.cache)
    val_loader = DeviceLoader(
        manifest, val_sampler, transform, device, val_options, gpu_cache=on_gpu
    )
    return train_loader, val_loader


def make_train_eval_loader(state: TrainState) -> DeviceLoader:
    """The train subset as validation sees clips: in order, not augmented (`--eval-train`)."""
    config, ctx = state.config, state.ctx
    sampler = BatchSampler(
        np.sort(state.split.train), config.batch_size // config.grad_accum_steps,
        rank=ctx.rank, world_size=ctx.world_size,
    )  # fmt: skip
    options = LoaderOptions(workers=config.workers, max_corrupt=config.max_corrupt)
    return DeviceLoader(state.manifest, sampler, state.transform, state.device, options)


def class_weights(
    config: Config, manifest: Manifest, split: splits.Split, device: torch.device
) -> torch.Tensor | None:
    """n / (K * n_k) over the train subset, float32 [K]: rare classes weigh more (section 3.4).

    A class without a train clip gets 0; it never occurs in the loss.
    """
    if config.class_weights == "none":
        return None
    counts = np.bincount(manifest.index["label"][split.train], minlength=len(manifest.classes))
    weights = np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32, device=device)


def unused_augmentations(config: Config) -> list[str]:
    """Options of the augmentation that are not at their defaults."""
    names = (
        "crop_scale", "rotation", "hflip", "per_frame", "brightness", "contrast", "saturation",
        "rand_augment",
    )  # fmt: skip
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if getattr(config, name) != getattr(Config, name)
    ]


def describe(state: TrainState) -> str:
    """The first lines of a run's log."""
    split, config = state.split, state.config
    leak = "no groups known" if split.leak is None else f"{split.leak:.1%} of test leaks from train"
    if len(split.test) == 0:
        leak = "nothing to test on"
    weights = getattr(state.model, "weights_info", None)
    transform, (T, H, W, _) = state.transform, state.manifest.clip_shape
    windows = f" at stride {config.frame_stride} of {T}" if config.frame_strides else ""
    lines = [
        f"{config.model}: {sum(p.numel() for p in state.model.parameters()):,} parameters, "
        f"{transform.frames} frames of {'x'.join(map(str, transform.crop_size))}{windows}, "
        f"{state.device}, {str(state.precision).removeprefix('torch.')}",
        f"split {split.name} ({split.digest}): {len(split.train)} train, {len(split.val)} val, "
        f"{len(split.test)} test clips, {leak}",
    ]
    lines += [f"note: {note}" for note in split.notes]
    gaps = splits.list_gaps(state.manifest, split)
    seen = describe_seen_clips(state.model, state.manifest, split)
    others = describe_other_options(state.model, state.model_options)
    lines += [f"warning: {text}" for text in (*gaps, *seen, *others)]
    lines += state.task.describe(state)
    if state.val_loader is None and state.task.has_val:
        lines.append(
            "without val clips the last epoch is kept as the best, patience is off and the plateau "
            "rule follows the training loss; '--val-from-train 0.1' holds out a tenth of train."
        )
    if weights is not None:
        lines.insert(1, weights.describe())
        if weights.source == "kinetics400" and "midplanes" in state.model_options:
            lines.insert(1, "midplanes=torchvision, as the kinetics400 weights need it")
    height, width = transform.resize_size
    if height > H or width > W:
        lines.append(
            f"note: the shards hold frames of {H}x{W}, which are scaled up to {height}x{width}: a "
            "smaller --size takes less time"
        )
    if not config.augment and (unused := unused_augmentations(config)):
        lines.append(f"note: without --augment these do nothing: {', '.join(unused)}")
    if config.zero_init and "zero_init_residual" not in state.model_options:
        lines.append(f"note: --zero-init does nothing: {config.model} has no such option")
    is_frozen = config.freeze not in (None, "none")
    if is_frozen and config.weights == "none" and not models.is_custom(config.model):
        lines.append(
            f"note: --freeze {config.freeze} keeps random weights as they are: give --weights, too"
        )
    lines += [
        f"note: {config.model} has no option {name}, so that of --preset {config.preset} is left "
        "out" for name in left_out(config)
    ]  # fmt: skip
    if config.shuffle_block_size:
        sampler = state.train_loader.loader.sampler
        lines.append(
            f"shuffle blocks of {sampler.block_size} clips: "
            f"quality {sampler.shuffle_quality(1):.2f} of 1"
        )
    return "\n".join(lines)
