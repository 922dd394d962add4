"""Where a network looks: Grad-CAM for the 3-D networks, state magnitude for ConvLSTM.

Grad-CAM (Selvaraju et al., 2017): the last group's features, weighted by the mean gradient of the
class's logit, summed over channels, negative parts cut off. ConvLSTM has no such maps over time
(its head sees the last step only), so the length of its hidden state's vector is shown, step by
step: where the memory is busy, whatever the class.

Odd: a map is scaled to [0, 1] over the whole clip, not frame by frame, so that a frame in which
nothing is looked at stays dark. The state's least value is subtracted first; it is never 0.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HarError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

    from ...shards.transforms.clip_transform import ClipTransform
    from .predictor import Predictor

_LAST = {"resnet3d": "layer4", "r2plus1d": "layer4", "r3d": "layer4"}
KINDS = {"convlstm": "state magnitude", **dict.fromkeys(_LAST, "Grad-CAM")}
_ENLARGE = 224  # pixels of a panel's shorter side, at least


class GradCamError(HarError):
    """A network without an attention map, or a name that is no GIF's; one sentence."""


def of_clip(predictor: Predictor, pixels: NDArray[np.uint8]) -> list[Image]:
    """The animation's pictures of a clip uint8 [T,H,W,3], for its most probable class.

    Raises GradCamError.
    """
    clip = predictor.input(pixels[None])
    (name, share), *_ = predictor.top(predictor.probabilities(pixels[None])[0], 1)
    target = predictor.classes.index(name)
    heat = attention(predictor.model, predictor.model_name, clip, target)
    return panels(cropped(clip, predictor.wanted), heat, name, share)


def of_video(predictor: Predictor, path: Path) -> list[Image]:
    """`of_clip` of a video's (first) clip. Raises GradCamError or VideoDecodeError."""
    from .predictor import read_clips

    return of_clip(predictor, read_clips(path, predictor.state["preprocessing"])[0])


def attention(model: nn.Module, name: str, clip: torch.Tensor, target: int) -> NDArray[np.float32]:
    """Where `model` (called `name`) looks for class `target`: [1,C,T,h,w] -> [T,h,w] in [0,1].

    Raises GradCamError for a network that is not one of the four.
    """
    import torch.nn.functional as F

    if name not in KINDS:
        raise GradCamError(f"--cam has no map for model {name!r}: it knows {', '.join(KINDS)}.")
    if name == "convlstm":
        coarse = _state_magnitude(model, clip)
    else:
        coarse = _grad_cam(model, model.get_submodule(_LAST[name]), clip, target)
    fine = F.interpolate(coarse[None, None], tuple(clip.shape[2:]), mode="trilinear")[0, 0]
    scaled: NDArray[np.float32] = (fine / fine.max().clamp(min=1e-12)).cpu().numpy()
    return scaled


def _grad_cam(model: nn.Module, layer: nn.Module, clip: torch.Tensor, target: int) -> torch.Tensor:
    """-> [t,h,w] >= 0, at the size of the layer's output."""
    import torch

    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _m, _i, output: seen.append(output))
    try:
        with torch.enable_grad():
            # of the input, so that features have a gradient where all weights are frozen, too
            logits = model(clip.detach().requires_grad_())
            (slope,) = torch.autograd.grad(logits[0, target], seen[0])  # [1,C,t,h,w]
    finally:
        hook.remove()
    weights = slope.mean((2, 3, 4), keepdim=True)
    return (weights * seen[0].detach()).sum(1)[0].relu()


def _state_magnitude(model: nn.Module, clip: torch.Tensor) -> torch.Tensor:
    """Length of the last layer's h at every step, less its least: [T,h,w] >= 0."""
    import torch

    every: Any = copy.copy(model)  # shares the weights; a server's other thread sees no change
    every.return_sequences = True
    with torch.inference_mode():
        h, _ = every.features(clip)  # [1,C,T,h,w]
        length = h[0].float().norm(dim=0)
        return length - length.min()


def cropped(pixels: torch.Tensor, wanted: ClipTransform) -> NDArray[np.uint8]:
    """The model's input [1,C,T,h,w] -> what is to see in it, uint8 [T,h,w,3]."""
    import torch

    mean, std = (
        torch.tensor(values, device=pixels.device).view(-1, 1, 1, 1)
        for values in (wanted.mean, wanted.std)
    )
    seen = ((pixels[0].float() * std + mean) * 255).round().clamp(0, 255).byte()
    frames: NDArray[np.uint8] = seen.permute(1, 2, 3, 0).cpu().numpy()
    return frames


def overlay(frames: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Frames [T,h,w,3] and heat [T,h,w] in [0,1] -> frames with the heat in colour over them.

    Cold places keep the darkened picture, hot ones turn to colour (matplotlib's inferno).
    """
    from matplotlib import colormaps

    colours = colormaps["inferno"](heat)[..., :3] * 255  # [T,h,w,3]
    share = 0.25 + 0.5 * heat[..., None]
    mixed: NDArray[np.uint8] = (frames * (1 - share) + colours * share).round().astype(np.uint8)
    return mixed


def panels(
    frames: NDArray[np.uint8], heat: NDArray[np.float32], name: str, share: float
) -> list[Image]:
    """One picture a frame: the frame, the same with the heat, and the label below both."""
    from PIL import Image

    from .annotate import label

    height, width = frames.shape[1:3]
    scale = max(1, -(-_ENLARGE // min(height, width)))
    height, width = height * scale, width * scale
    caption = label(name, share, 2 * width, max(24, height // 8)).convert("RGB")
    pictures = []
    for plain, hot in zip(frames, overlay(frames, heat), strict=True):
        sheet = Image.new("RGB", (2 * width, height + caption.height))
        for n, side in enumerate((plain, hot)):
            enlarged = Image.fromarray(side).resize((width, height), Image.Resampling.BICUBIC)
            sheet.paste(enlarged, (n * width, 0))
        sheet.paste(caption, (0, height))
        pictures.append(sheet)
    return pictures


def check_name(path: Path) -> None:
    if path.suffix.lower() != ".gif":
        raise GradCamError(f"--cam {path} is no GIF's name: end it in .gif.")


def write_gif(path: Path, pictures: Sequence[Image], milliseconds: int = 160) -> Path:
    """Write an endless animation, whole or not at all; -> path."""
    from ...atomic import write_atomically

    check_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, gif(pictures, milliseconds))
    return path


def gif(pictures: Sequence[Image], milliseconds: int = 160) -> bytes:
    """An endless animation as the bytes of a GIF."""
    first, *rest = pictures
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return file.getvalue()
