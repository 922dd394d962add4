"""What the first layer learned: figure 16 of the paper for R(2+1)D, similar ones for others.

The pictures are laid out as arrays first, so that grid and value range can be tested without
reading a picture; matplotlib only adds words. One weight is always a whole number of pixels, with
nothing smoothed between them. As in the paper, weights in [-limit, limit] are shown as [-1, 1]
(limit 0.3); what lies outside is clipped.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from .style import DISPLAY_NAMES, new_figure

LIMIT = 0.3  # caption of the paper's figure 16
ENLARGE = 4  # the same
GAP = 4  # pixels between filters, after enlarging

Floats = NDArray[np.floating]


def scale_weights(weights: Floats, limit: float = LIMIT) -> NDArray[np.float64]:
    """Weights of any shape -> the same shape in [-1, 1]: divided by `limit`, then clipped."""
    return np.clip(np.asarray(weights, np.float64) / limit, -1.0, 1.0)


def tile(cells: Floats, columns: int, *, blank: float = 1.0) -> NDArray[np.float64]:
    """Cells [N,h,w,...] -> one sheet, rows of `columns` cells, each value ENLARGE^2 pixels.

    The sheet is [rows*(h*ENLARGE+GAP)+GAP, columns*(w*ENLARGE+GAP)+GAP, ...]; gaps and empty
    places are `blank`.
    """
    cells = cells.repeat(ENLARGE, axis=1).repeat(ENLARGE, axis=2)
    count, height, width = cells.shape[:3]
    rows = -(-count // columns)
    shape = (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, *cells.shape[3:])
    sheet = np.full(shape, blank)
    for n in range(count):
        y, x = (n // columns) * (height + GAP) + GAP, (n % columns) * (width + GAP) + GAP
        sheet[y : y + height, x : x + width] = cells[n]
    return sheet


def temporal_mosaic(weights: Floats) -> NDArray[np.float64]:
    """Figure 16(b). [64,45,3,1,1] -> sheet in [-1,1], one 45x3 matrix a filter, left to right.

    Rows of a matrix are the 45 spatial channels, its columns the 3 frames. Gaps are nan, because
    white is a value on this scale.
    """
    matrices = scale_weights(weights[:, :, :, 0, 0])  # [64,45,3]
    return tile(matrices, columns=len(matrices), blank=np.nan)


def rgb_mosaic(weights: Floats, columns: int, limit: float = LIMIT) -> NDArray[np.float64]:
    """Filters over color and time [N,3,t,h,w] -> RGB sheet in [0,1]; a filter's t frames abut.

    The three input channels are the colors; weight 0 is middle gray.
    """
    colors = (scale_weights(weights, limit).transpose(0, 3, 2, 4, 1) + 1) / 2  # [N,h,t,w,3]
    count, height, frames, width, channels = colors.shape
    strips = colors.reshape(count, height, frames * width, channels)
    return tile(strips, columns)


def first_layer_weights(state_dict: Mapping[str, Any]) -> list[Floats]:
    """-> the float32 weights of a model's first layer.

    R(2+1)D gives two: spatial [M,3,1,h,w] and temporal [N,M,t,1,1]; a 3-D network one
    [N,3,t,h,w]; a ConvLSTM its stem, [N,3,1,h,w] or [N,3,h,w]; no convolution over RGB none.
    A state dict keeps the order in which layers were made, so the first with three or six input
    channels is the first layer; of six (frames and their differences) the frames' three are given.
    """
    layers = [v for k, v in state_dict.items() if k.endswith("weight") and v.ndim in (4, 5)]
    rgb = [index for index, weights in enumerate(layers) if weights.shape[1] in (3, 6)]
    layers = layers[rgb[0] : rgb[0] + 2] if rgb else []
    layers[:1] = [weights[:, :3] for weights in layers[:1]]
    shapes = [tuple(weights.shape[2:]) for weights in layers]
    factorized = len(shapes) == 2 and shapes[0][0] == 1 and shapes[1][1:] == (1, 1)
    return [value.detach().cpu().float().numpy() for value in layers[: 2 if factorized else 1]]


def plot_filters(path: Path, model: str, state_dict: Mapping[str, Any]) -> Path | None:
    """Draw the first layer of `model` from its state dict; None where it has no such layer."""
    layers = first_layer_weights(state_dict)
    if not layers:
        return None
    return _plot_figure16(path, *layers) if len(layers) == 2 else _plot_rgb(path, model, *layers)


def _plot_figure16(path: Path, spatial: Floats, temporal: Floats) -> Path:
    """Figure 16: (a) spatial filters [45,3,1,7,7] enlarged 4x, (b) temporal [64,45,3,1,1]."""
    filters, channels, frames = temporal.shape[:3]
    sheets = rgb_mosaic(spatial, min(9, len(spatial))), temporal_mosaic(temporal)
    ratios = [sheet.shape[0] / sheet.shape[1] for sheet in sheets]
    with new_figure(path, 7.6, 1.9 + 7.2 * sum(ratios)) as figure:
        top, bottom = figure.subplots(2, 1, height_ratios=ratios)
        _show(top, sheets[0])
        top.set_title(f"(a) {len(spatial)} spatial filters, 7×7, enlarged 4×, in color")
        # white is weight 0 here, so the gaps between the matrices are gray
        cmap = colormaps["RdBu_r"].with_extremes(bad="#9a9a9a")
        image = _show(bottom, sheets[1], cmap=cmap, vmin=-1, vmax=1)
        bottom.set_title(f"(b) {filters} temporal filters, each a {channels}×{frames} matrix")
        bottom.set_ylabel(f"{channels} channels", fontsize=9)
        bottom.set_xlabel(f"filters 1 to {filters}, {frames} frames each", fontsize=9)
        bar = figure.colorbar(image, ax=bottom, location="bottom", shrink=0.5, aspect=45)
        bar.set_label("weight, [−0.3, 0.3] shown as [−1, 1]", fontsize=9)
        bar.outline.set_visible(False)
    return path


def _plot_rgb(path: Path, model: str, weights: Floats) -> Path:
    """Filters [N,3,t,h,w] or [N,3,h,w] on a scale of their own, their 99.5th percentile: weights
    of a 3x7x7 filter are much smaller than those of a 1x7x7 one."""
    weights = weights if weights.ndim == 5 else weights[:, :, None]  # [N,3,t,h,w]
    limit = max(float(np.quantile(np.abs(weights), 0.995)), 1e-8)
    count, _, frames, height, width = weights.shape
    sheet = rgb_mosaic(weights, 8 if frames > 1 else 16, limit)
    size = f"{frames}×{height}×{width}" if frames > 1 else f"{height}×{width}"
    with new_figure(path, 6.4, 0.75 + 6.4 * sheet.shape[0] / sheet.shape[1]) as figure:
        axes = figure.subplots()
        _show(axes, sheet)
        name = DISPLAY_NAMES.get(model, model)
        axes.set_title(f"{name}: {count} first-layer filters, {size}")
        note = ", frames side by side" if frames > 1 else ""
        axes.set_xlabel(f"weights in ±{limit:.2g} shown as color{note}", fontsize=9)
    return path


def _show(axes: Axes, sheet: NDArray, **options: Any) -> AxesImage:
    image = axes.imshow(sheet, interpolation="nearest", **options)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return image
