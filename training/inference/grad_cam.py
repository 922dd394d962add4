"""Where a network looks: Grad-CAM for the 3-D networks, state magnitude for ConvLSTM.

Grad-CAM (Selvaraju et al., 2017): the features of the last residual group (of a model of the user,
of the part that its `cam_layer` names), weighted by the mean gradient of the class's logit, summed
over channels, negative parts cut off. ConvLSTM has no such
map over time (its head sees the last step only); shown is the length of its hidden state's vector
at every step: where the memory is active, whatever the class.

Notes: a map is scaled to [0, 1] over the whole clip, not frame by frame, so that a frame without
attention stays dark. The least value of the state is subtracted first; it is never 0.
"""

import copy
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from ...shards.transforms.clip_transform import ClipTransform
from .annotate import draw_label
from .predictor import Predictor
from .windows import PredictionError

_CAM_LAYERS = dict.fromkeys(("resnet3d", "r2plus1d", "r3d"), "layer4")
_MIN_SIDE = 224  # pixels of a panel's shorter side


def animate_clip(predictor: Predictor, pixels: NDArray[np.uint8]) -> list[Image.Image]:
    """One picture a frame of a clip uint8 [T,H,W,3], with the map of its most probable class.

    Raises PredictionError.
    """
    clip = predictor.preprocess(pixels[None])
    ((name, probability),) = predictor.top_classes(predictor.predict_clips(pixels[None])[0], 1)
    label = predictor.classes.index(name)
    heat = attention_map(predictor.model, predictor.model_name, clip, label)
    return draw_panels(denormalize(clip, predictor.transform), heat, name, probability)


def map_name(model: nn.Module, model_name: str) -> str | None:
    """What `attention_map` shows of this model; None where it has no map."""
    if model_name == "convlstm":
        return "state magnitude"
    return "Grad-CAM" if _cam_layer(model, model_name) else None


def _cam_layer(model: nn.Module, model_name: str) -> str | None:
    return _CAM_LAYERS.get(model_name) or getattr(model, "cam_layer", None)


def attention_map(
    model: nn.Module, model_name: str, clip: torch.Tensor, label: int
) -> NDArray[np.float32]:
    """Where the model looks for class `label`: [1,C,T,h,w] -> float32 [T,h,w] in [0,1].

    Raises PredictionError for a model of the user that has no layer for it.
    """
    if model_name == "convlstm":
        coarse = _state_magnitude(model, clip)
    elif layer := _cam_layer(model, model_name):
        coarse = _grad_cam(model, model.get_submodule(layer), clip, label)
    else:
        raise PredictionError(
            f"--cam has no map for model {model_name!r}: let its class name a layer in cam_layer, "
            "whose output is [B,C,t,h,w] (docs/models.md)."
        )
    fine = F.interpolate(coarse[None, None], tuple(clip.shape[2:]), mode="trilinear")[0, 0]
    return np.asarray((fine / fine.max().clamp(min=1e-12)).cpu(), np.float32)


def _grad_cam(model: nn.Module, layer: nn.Module, clip: torch.Tensor, label: int) -> torch.Tensor:
    """-> [t,h,w] >= 0, at the size of the layer's output."""
    features: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _m, _i, output: features.append(output))
    try:
        with torch.enable_grad():
            # the input requires a gradient, so that features have one under frozen weights, too
            logits = model(clip.detach().requires_grad_())
            if not features or features[0].dim() != 5:
                raise PredictionError(
                    "--cam: the layer that cam_layer names gives no output [B,C,t,h,w]: name "
                    "another one, a convolution over the clip (docs/models.md)."
                )
            (gradient,) = torch.autograd.grad(logits[0, label], features[0])  # [1,C,t,h,w]
    finally:
        hook.remove()
    weights = gradient.mean((2, 3, 4), keepdim=True)
    return (weights * features[0].detach()).sum(1)[0].relu()


def _state_magnitude(model: nn.Module, clip: torch.Tensor) -> torch.Tensor:
    """Norm of the last layer's h at every step, minus its least: [T,h,w] >= 0."""
    per_step: Any = copy.copy(model)  # shares the weights; other threads' model stays as it is
    per_step.return_sequences = True
    with torch.inference_mode():
        h, _ = per_step.features(clip)  # [1,C,T,h,w]
        norm = h[0].float().norm(dim=0)
        return norm - norm.min()


def denormalize(clip: torch.Tensor, transform: ClipTransform) -> NDArray[np.uint8]:
    """The model's input [1,C,T,h,w] -> its pixels, uint8 [T,h,w,3]."""
    mean, std = (
        torch.tensor(values, device=clip.device).view(-1, 1, 1, 1)
        for values in (transform.mean, transform.std)
    )
    pixels = ((clip[0].float() * std + mean) * 255).round().clamp(0, 255).byte()
    return np.asarray(pixels.permute(1, 2, 3, 0).cpu(), np.uint8)


def overlay_heat(frames: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Frames [T,h,w,3] and heat [T,h,w] in [0,1] -> frames with the heat in color over them, dark
    where it is cold."""
    colors = colormaps["inferno"](heat)[..., :3] * 255  # [T,h,w,3]
    alpha = 0.25 + 0.5 * heat[..., None]
    return np.asarray((frames * (1 - alpha) + colors * alpha).round(), np.uint8)


def draw_panels(
    frames: NDArray[np.uint8], heat: NDArray[np.float32], name: str, probability: float
) -> list[Image.Image]:
    """One picture a frame: the frame, beside it the same with the heat, the label below both."""
    height, width = frames.shape[1:3]
    scale = max(1, -(-_MIN_SIDE // min(height, width)))
    height, width = height * scale, width * scale
    caption = draw_label(name, probability, 2 * width, max(24, height // 8)).convert("RGB")
    panels = []
    for pair in zip(frames, overlay_heat(frames, heat), strict=True):
        panel = Image.new("RGB", (2 * width, height + caption.height))
        for column, pixels in enumerate(pair):
            enlarged = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
            panel.paste(enlarged, (column * width, 0))
        panel.paste(caption, (0, height))
        panels.append(panel)
    return panels


def encode_gif(panels: Sequence[Image.Image], milliseconds: int = 160) -> bytes:
    """An endless animation as the bytes of a GIF."""
    first, *rest = panels
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return file.getvalue()
