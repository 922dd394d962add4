"""What the first layer learned: figure 16 of the paper for R(2+1)D, the like for the others.

Odd: the pictures are laid out as arrays first (`tile`, `spatial_mosaic`, `temporal_mosaic`), so
that grid and value range can be tested without reading a picture; matplotlib only adds words. One
weight is always a whole number of pixels, with nothing smoothed between them. As the paper does,
weights in [-limit, limit] are shown as [-1, 1] (limit 0.3); what lies outside is clipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .curves import NAMES, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 0.3  # the paper's caption of Fig 16
ENLARGE = 4  # the same
GAP = 4  # pixels between filters, after enlarging

Floats = NDArray[np.floating]


def shown(weights: Floats, limit: float = LIMIT) -> NDArray[np.float64]:
    """Weights of any shape -> the same shape in [-1, 1]: divided by `limit`, then clipped."""
    return np.clip(np.asarray(weights, np.float64) / limit, -1.0, 1.0)


def tile(cells: Floats, columns: int, *, blank: float = 1.0) -> NDArray[np.float64]:
    """Cells [N,h,w,...] -> one sheet, rows of `columns` cells, each value ENLARGE^2 pixels.

    The sheet is [rows*(h*ENLARGE+GAP)+GAP, columns*(w*ENLARGE+GAP)+GAP, ...]; gaps and empty
    places are `blank`.
    """
    cells = cells.repeat(ENLARGE, axis=1).repeat(ENLARGE, axis=2)
    number, height, width = cells.shape[:3]
    rows = -(-number // columns)
    shape = (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, *cells.shape[3:])
    sheet = np.full(shape, blank)
    for n in range(number):
        y, x = (n // columns) * (height + GAP) + GAP, (n % columns) * (width + GAP) + GAP
        sheet[y : y + height, x : x + width] = cells[n]
    return sheet


def spatial_mosaic(weights: Floats, *, limit: float = LIMIT) -> NDArray:
    """Fig 16(a). [45,3,1,7,7] (or [N,3,h,w]) -> RGB sheet in [0,1], nine filters a row.

    The three input channels are the colours; weight 0 is middle grey.
    """
    if weights.ndim == 5:
        weights = weights[:, :, 0]  # [N,3,h,w]
    return tile((shown(weights, limit).transpose(0, 2, 3, 1) + 1) / 2, columns=9)


def temporal_mosaic(weights: Floats, *, limit: float = LIMIT) -> NDArray:
    """Fig 16(b). [64,45,3,1,1] -> sheet in [-1,1], one 45x3 matrix a filter, left to right.

    Rows of a matrix are the 45 spatial channels, its columns the 3 frames. Gaps are nan, because
    on this scale white is a value.
    """
    matrices = shown(weights[:, :, :, 0, 0], limit)  # [64,45,3]
    return tile(matrices, columns=len(matrices), blank=np.nan)


def frames_mosaic(weights: Floats, *, limit: float) -> NDArray:
    """Filters over colour and time [N,3,t,h,w] -> RGB sheet in [0,1]; a filter's t frames abut."""
    colours = (shown(weights, limit).transpose(0, 3, 2, 4, 1) + 1) / 2  # [N,h,t,w,3]
    number, height, frames, width, channels = colours.shape
    strips = colours.reshape(number, height, frames * width, channels)
    return tile(strips, columns=8 if frames > 1 else 16)


def first_layer(state: Mapping[str, Any]) -> list[tuple[str, Floats]]:
    """The state dict of a model -> (name, weights) of its first layer, as float32 arrays.

    R(2+1)D gives two: spatial [M,3,1,h,w] and temporal [N,M,t,1,1]; a 3-D network one
    [N,3,t,h,w]; a ConvLSTM its stem, [N,3,1,h,w]. A state dict keeps the order in which layers
    were made, so the first with three input channels is the first layer.
    """
    layers = [(k, v) for k, v in state.items() if k.endswith("weight") and v.ndim in (4, 5)]
    colour = [number for number, (_, v) in enumerate(layers) if v.shape[1] == 3]
    layers = layers[colour[0] :] if colour else []  # from the first that looks at RGB on
    factorised = len(layers) > 1 and layers[1][1].shape[2:] == (layers[1][1].shape[2], 1, 1)
    wanted = layers[: 2 if factorised and layers[0][1].shape[2] == 1 else 1]
    return [(name, value.detach().cpu().float().numpy()) for name, value in wanted]


def write(path: Path, model: str, state: Mapping[str, Any]) -> Path | None:
    """Draw the first layer of `model` from its state dict; None where it has no such layer."""
    layers = first_layer(state)
    if not layers:
        return None
    if len(layers) == 2:
        return figure16(path, layers[0][1], layers[1][1])
    return other_filters(path, model, *layers[0])


def figure16(path: Path, spatial: Floats, temporal: Floats) -> Path:
    """Figure 16: (a) spatial filters [45,3,1,7,7] enlarged 4x, (b) temporal [64,45,3,1,1]."""

    def draw(figure: Figure) -> None:
        from matplotlib import colormaps

        top, bottom = figure.subplots(2, 1, height_ratios=[2.55, 1])
        _show(top, spatial_mosaic(spatial))
        top.set_title(f"(a) {len(spatial)} spatial filters, 7×7, enlarged 4×, in colour")
        # white is weight 0 here, so what lies between the matrices is grey
        colours = colormaps["RdBu_r"].with_extremes(bad="#9a9a9a")
        picture = _show(bottom, temporal_mosaic(temporal), cmap=colours)
        channels, frames = temporal.shape[1:3]
        bottom.set_title(f"(b) {len(temporal)} temporal filters, each a {channels}×{frames} matrix")
        bottom.set_ylabel(f"{channels} channels", fontsize=9)
        bottom.set_xlabel(f"filters 1 to {len(temporal)}, {frames} frames each", fontsize=9)
        bar = figure.colorbar(picture, ax=bottom, location="bottom", shrink=0.5, aspect=45)
        bar.set_label("weight, [−0.3, 0.3] shown as [−1, 1]", fontsize=9)
        bar.outline.set_visible(False)

    return write_picture(path, (7.6, 7.2), draw)


def other_filters(path: Path, model: str, name: str, weights: Floats) -> Path:
    """First-layer filters of a network other than R(2+1)D: [N,3,t,h,w] or [N,3,h,w].

    The scale is the weights' own (their 99.5th percentile), written into the title: a 3x7x7
    filter's weights are much smaller than those of a 1x7x7 one.
    """
    colour = weights if weights.ndim == 5 else weights[:, :, None]  # [N,3,t,h,w]
    limit = max(float(np.quantile(np.abs(colour), 0.995)), 1e-8)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _show(axes, sheet)
        number, _, frames, height, width = colour.shape
        size = f"{frames}×{height}×{width}" if frames > 1 else f"{height}×{width}"
        axes.set_title(f"{NAMES.get(model, model)}: {number} first-layer filters, {size}")
        note = ", frames side by side" if frames > 1 else ""
        axes.set_xlabel(f"weights in ±{limit:.2g} shown as colour{note}", fontsize=9)

    sheet = frames_mosaic(colour, limit=limit)
    width = 6.4
    return write_picture(path, (width, 0.75 + width * sheet.shape[0] / sheet.shape[1]), draw)


def _show(axes: Any, sheet: NDArray, **options: Any) -> Any:
    picture = axes.imshow(
        sheet,
        interpolation="nearest",
        **({"vmin": -1, "vmax": 1} if sheet.ndim == 2 else {}),
        **options,
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return picture
