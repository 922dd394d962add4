"""The common style of all pictures: colours, markers, fonts, and how a picture is written.

A model keeps its colour and its marker in every picture (Okabe-Ito colours, safe for colour-blind
readers; the marker tells them apart without colour). Widths are chosen for a phone: text stays
readable at 360 pixels. Only matplotlib's Figure and its Agg canvas are used, never pyplot, so no
window opens whatever MPLBACKEND says, and no global state is changed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...atomic import write_atomically

DPI = 200
# the names of the models in the paper, in the order of its Table 1
DISPLAY_NAMES = {
    "r3d": "R3D",
    "r2plus1d": "R2Plus1D",
    "resnet3d": "ResNet3D",
    "convlstm": "ConvLSTM",
}
_MODEL_STYLES = {
    "r3d": ("#0072B2", "o"),
    "r2plus1d": ("#D55E00", "s"),
    "resnet3d": ("#009E73", "^"),
    "convlstm": ("#AA4499", "D"),
}
_OTHER_STYLE = ("#555555", "v")
_RC_PARAMS: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a class may be called "a$b$c"
    "svg.hashsalt": "har",  # else the ids in an SVG differ each time
    "svg.fonttype": "none",  # text stays text: it can be searched, read out and edited
}
_with_svg: ContextVar[bool] = ContextVar("with_svg", default=False)


def model_style(model: str) -> tuple[str, str]:
    """-> the color and the marker of a model, the same in every picture."""
    return _MODEL_STYLES.get(model, _OTHER_STYLE)


@contextmanager
def svg_copies() -> Iterator[None]:
    """Inside this context each picture is also written as an SVG of the same name."""
    token = _with_svg.set(True)
    try:
        yield
    finally:
        _with_svg.reset(token)


@contextmanager
def new_figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of `width` x `height` inches in the common style, written to `path` at the end.

    The suffix of `path` chooses the format (.png or .svg). No date and no version go into the
    file, so the same numbers give the same bytes. Nothing is written where the block fails.
    """
    with rc_context(_RC_PARAMS):
        figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        copies = [path.with_suffix(".svg")] if _with_svg.get() else []
        for out_path in dict.fromkeys([path, *copies]):
            kind = out_path.suffix.lower().removeprefix(".")
            buffer = io.BytesIO()
            metadata = {"Software": None} if kind == "png" else {"Date": None}
            figure.savefig(buffer, format=kind, metadata=metadata)
            write_atomically(out_path, buffer.getvalue())
