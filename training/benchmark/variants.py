"""Other ways to compute the same training step, each timed beside the way it is done now.

A variant that wins clearly on a device is a candidate for the models themselves. `difference` says
how far its logits are from today's: a variant that computes something else wins nothing.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...models import gates, recurrence
from ..step import forward, random_clips
from .steps import Step, Workload, build_model, training_step

RESIDUAL = ("resnet3d", "r2plus1d", "r3d")
ALL = (*RESIDUAL, "convlstm")
TODAY = "as it is"
_GATE_FUNCTIONS = ("activate", "gates_and_cells", "step_backward_")


@dataclass(frozen=True)
class Variant:
    """models: those it can be tried on. options: of the model. change_model: in place, or another
    that shares the weights. change_clips: [B,3,T,h,w], once, before the steps. wrap_step: the whole
    step. needs: "cuda", "compile" or nothing.
    """

    name: str
    models: Sequence[str] = ALL
    options: dict[str, Any] = field(default_factory=dict)
    change_model: Callable[[nn.Module], nn.Module] = lambda model: model
    change_clips: Callable[[torch.Tensor], torch.Tensor] = lambda clips: clips
    wrap_step: Callable[[Step], Step] = lambda step: step
    needs: str = ""


def make_variant_step(name: str, variant: Variant, workload: Workload) -> tuple[Step, float]:
    """-> a training step, run once, and the largest difference of its logits from today's, relative
    to their largest value.

    Raises whatever torch raises where the variant does not work on the device.
    """
    (B, _, T, H, W), device = workload.shape, workload.device
    clips = random_clips(B, T, (H, W), device)
    model = build_model(name, workload, **variant.options)
    expected = _logits(build_model(name, workload), clips[:2], workload)
    changed = variant.change_model(model)
    changed_clips = variant.change_clips(clips)
    logits = _logits(changed, changed_clips[:2], workload)
    difference = float((logits - expected).abs().max() / expected.abs().max())
    step = variant.wrap_step(training_step(changed, changed_clips, workload))
    step()
    return step, difference


@torch.no_grad()
def _logits(model: nn.Module, clips: torch.Tensor, workload: Workload) -> torch.Tensor:
    return forward(model.eval(), clips, workload.precision)


def convolve_on_views(model: nn.Module) -> nn.Module:
    """1xkxk convolutions as 2-D ones over frames, kx1x1 ones as (k,1) ones over pixels.

    Both read channels-last clips [B,C,T,H,W] as they lie in memory: no copy.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size != (1, 1, 1):
            time, *space = module.kernel_size
            if time == 1:
                forward = functools.partial(_convolve_frames, module)
                module.forward = forward  # type: ignore[method-assign]
            elif space == [1, 1]:
                forward = functools.partial(_convolve_over_time, module)
                module.forward = forward  # type: ignore[method-assign]
    return model


def _convolve_frames(conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    B, _, T = x.shape[:3]
    frames = x.transpose(1, 2).flatten(0, 1)  # [B*T,C,H,W], channels last
    stride, padding = conv.stride[1:], conv.padding[1:]
    y = F.conv2d(frames, conv.weight.squeeze(2), None, stride, padding)
    return y.unflatten(0, (B, T)).transpose(1, 2)[:, :, :: conv.stride[0]]


def _convolve_over_time(conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    weight = conv.weight.squeeze(-1)  # [out,in,k,1]
    stride, padding = (conv.stride[0], 1), (int(conv.padding[0]), 0)
    y = F.conv2d(x.flatten(3), weight, None, stride, padding)  # [B,out,T/s,H*W]
    return y.unflatten(3, x.shape[3:])


def pad_stem(channels: int, model: nn.Module) -> nn.Module:
    """The first convolution takes clips with zeros as channels 4 to `channels`."""
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv3d))
    conv.forward = functools.partial(  # type: ignore[method-assign]
        _convolve_padded, conv, channels
    )
    return model


def _convolve_padded(conv: nn.Conv3d, channels: int, x: torch.Tensor) -> torch.Tensor:
    weight = F.pad(conv.weight, (0, 0, 0, 0, 0, 0, 0, channels - conv.in_channels))
    weight = weight.contiguous(memory_format=torch.channels_last_3d)
    stride, padding = conv.stride, conv.padding
    return F.conv3d(x, weight, None, stride, padding)


def pad_channels(channels: int, clips: torch.Tensor) -> torch.Tensor:
    """[B,3,T,h,w] -> [B,channels,T,h,w], zeros behind."""
    clips = F.pad(clips, (0, 0, 0, 0, 0, 0, 0, channels - clips.shape[1]))
    return clips.contiguous(memory_format=torch.channels_last_3d)


def compile_norms(model: nn.Module) -> nn.Module:
    """Batch norm and the ReLU behind it as one compiled function."""
    for module in list(model.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        layers = list(module)
        for n in range(len(layers) - 1):
            if isinstance(layers[n], nn.BatchNorm3d) and isinstance(layers[n + 1], nn.ReLU):
                module[n] = torch.compile(nn.Sequential(layers[n], nn.ReLU()))  # type: ignore
                module[n + 1] = nn.Identity()
    return model


def compile_gates(step: Step) -> Step:
    """The ConvLSTM's gate arithmetic compiled, forward and backward, while this step runs."""
    compiled = {name: torch.compile(getattr(gates, name)) for name in _GATE_FUNCTIONS}

    def run(*clips: torch.Tensor) -> None:
        for name, function in compiled.items():
            setattr(recurrence, name, function)
        try:
            step(*clips)
        finally:
            for name in compiled:
                setattr(recurrence, name, getattr(gates, name))

    return run


def capture(step: Step) -> Step:
    """The step as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


VARIANTS = (
    Variant("convolutions on views", ("r2plus1d",), change_model=convolve_on_views),
    *(
        Variant(
            f"stem of {channels} channels",
            RESIDUAL,
            change_model=functools.partial(pad_stem, channels),
            change_clips=functools.partial(pad_channels, channels),
        )
        for channels in (4, 8)
    ),
    Variant("gates kept", ("convlstm",), options={"recompute": False}),
    Variant("gates computed again", ("convlstm",), options={"recompute": True}),
    Variant("CUDA graph", wrap_step=capture, needs="cuda"),
    Variant("norm and ReLU compiled", RESIDUAL, change_model=compile_norms, needs="compile"),
    Variant("gates compiled", ("convlstm",), wrap_step=compile_gates, needs="compile"),
    Variant("torch.compile", change_model=torch.compile, needs="compile"),  # type: ignore[arg-type]
    Variant(
        "torch.compile, max-autotune",
        change_model=functools.partial(torch.compile, mode="max-autotune-no-cudagraphs"),  # type: ignore[arg-type]
        needs="compile",
    ),
)
