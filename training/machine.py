"""What the machine decides of a run: its device, its precision, whether ConvLSTM recomputes."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from ..models.convlstm import ConvLSTM
from ..shards.transforms.clip_transform import ClipTransform
from .config import Config, ConfigError
from .runtime import memory, unusable_gpu
from .runtime.device import TRUSTED, place_model, select_device
from .runtime.distributed import DistributedContext
from .runtime.precision import DTYPES, NAMES, select_precision
from .state import Log
from .step import forward, random_clips

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
_SHAPE = (2, 4, (32, 32))  # clips, frames and size of the step that tries a device
_LEAST_COSINE = {"fp32": 0.999, "bf16": 0.98, "fp16": 0.98}  # of gradients with the CPU's


def resolve_machine(
    config: Config, log: Log, ctx: DistributedContext
) -> tuple[Config, torch.device]:
    """-> the config with what "auto" gives as its precision, alike on all ranks, and the device.

    The run keeps that precision: probed again in a resumed run, a busy machine could change it.
    """
    local_rank = ctx.local_rank if ctx.world_size > 1 else None
    device = select_device(config.device, local_rank, untested=True)
    fault = unusable_gpu.find_fault() if config.device == "auto" and device.type == "cpu" else None
    if fault is not None:
        log(f"WARNING: {fault.text}; this run trains on the CPU. To use the GPU: {fault.remedy}.")
    precision = NAMES[select_precision(config.precision, device, log)]
    return replace(config, precision=ctx.broadcast(precision)), device


def check_device(
    config: Config, model: nn.Module, device: torch.device, make_optimizer: MakeOptimizer, log: Log
) -> torch.device:
    """`device`, where a step of `model` gives there what it gives on the CPU; that is tried on the
    types of devices that are not trusted. Else the CPU for "auto", and ConfigError.

    make_optimizer: for a copy of the model, which is left as it is.
    """
    if device.type in TRUSTED:
        return device
    fault = find_device_fault(model, device, config.precision, make_optimizer)
    if fault is None:
        return device
    if config.device != "auto":
        raise ConfigError(f"--device {config.device}: {fault}: use '--device cpu'.")
    log(f"WARNING: {fault}: this run trains on the CPU, in {config.precision}.")
    return torch.device("cpu")


def find_device_fault(
    model: nn.Module, device: torch.device, precision: str, make_optimizer: MakeOptimizer
) -> str | None:
    """Why `model` cannot train on `device`; None where a step there, in float32 and in
    `precision`, has the gradients of the CPU in float32 and moves the weights.

    In less than float32 batch norm is in evaluation mode: with the statistics of two clips rounding
    alone turns the gradients so far (a cosine of about 0.5) that a sound device would fail.
    """
    for name in dict.fromkeys(("fp32", precision)):
        copied = copy.deepcopy(model).train()
        for module in copied.modules():
            is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if isinstance(module, nn.Dropout) or (is_norm and name != "fp32"):
                module.eval()  # dropout: each device draws its own
        exact = _try_step(copied, torch.device("cpu"), "fp32", make_optimizer)
        try:
            gradients = _try_step(copied, device, name, make_optimizer)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            reason = str(error).strip().split("\n", 1)[0][:160]
            return f"a training step of this model in {name} fails on {device} ({reason})"
        cosine = F.cosine_similarity(gradients, exact, dim=0).item()
        if not cosine >= _LEAST_COSINE[name]:  # nan too
            return (
                f"a training step of this model in {name} is wrong on {device} (its gradients have "
                f"a cosine of {cosine:.3f} with the CPU's)"
            )
    return None


def _try_step(
    model: nn.Module, device: torch.device, precision: str, make_optimizer: MakeOptimizer
) -> torch.Tensor:
    """A training step of a copy of `model` on a few clips of noise; -> its gradients, flat, on the
    CPU."""
    model = place_model(copy.deepcopy(model), device, DTYPES[precision])
    optimizer = make_optimizer(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clips = random_clips(*_SHAPE, torch.device("cpu")).to(device)
    labels = torch.arange(len(clips), device=device)
    F.cross_entropy(forward(model, clips, DTYPES[precision]), labels).backward()
    gradients = [p.grad.cpu().double().flatten() for p in model.parameters() if p.grad is not None]
    before = [p.detach().cpu().clone() for p in model.parameters()]
    optimizer.step()
    after = [p.detach().cpu() for p in model.parameters()]
    if all(map(torch.equal, before, after)) or not all(p.isfinite().all() for p in after):
        raise RuntimeError("the optimizer leaves the weights as they were, or not finite")
    return torch.cat(gradients)


def choose_recompute(
    config: Config, model: ConvLSTM, transform: ClipTransform, device: torch.device,
    ctx: DistributedContext,
) -> bool:  # fmt: skip
    """Whether `--recompute auto` computes gates again; set on `model`, and returned."""
    batch_size = config.batch_size // config.grad_accum_steps // ctx.world_size
    shape = (batch_size, 3, transform.frames, *transform.crop_size)
    gate_bytes = model.gate_bytes(shape, DTYPES[config.precision].itemsize)
    model.recompute = memory.is_short(sum(gate_bytes), device)
    return model.recompute
