"""The common style of all pictures: names, colors and markers of models, and how a picture is
written.

Widths are chosen for a phone: text stays readable at 360 pixels. Only matplotlib's Figure and its
Agg canvas are used, never pyplot, so no window opens whatever MPLBACKEND says.
"""

import io
import itertools
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from matplotlib import figure as mpl_figure
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from ...atomic import write_atomically
from ...fonts import choose_fonts

DPI = 200
_SCREEN_DPI = 100  # in a notebook
# the paper's names of the models, in the order of its Table 1
DISPLAY_NAMES = {
    "r3d": "R3D",
    "r2plus1d": "R2Plus1D",
    "resnet3d": "ResNet3D",
    "convlstm": "ConvLSTM",
}
Style = tuple[str, str]  # color and marker
# Okabe-Ito colors, safe for color-blind readers; the marker tells models apart without color
_MODEL_STYLES: dict[str, Style] = {
    "r3d": ("#0072B2", "o"),
    "r2plus1d": ("#D55E00", "s"),
    "resnet3d": ("#009E73", "^"),
    "convlstm": ("#AA4499", "D"),
}
_OTHER_STYLES: tuple[Style, ...] = (
    ("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X"), ("#882255", "<"),
    ("#999933", ">"), ("#332288", "p"), ("#AA7744", "h"), ("#777777", "d"),
)  # fmt: skip
_with_svg: ContextVar[bool] = ContextVar("with_svg", default=False)


def label_styles(models: Mapping[str, str]) -> dict[str, Style]:
    """Color and marker of each label, all different up to twelve. models: label -> model.

    The first label of each of the four models gets the model's own.
    """
    own, others = dict(_MODEL_STYLES), itertools.cycle(_OTHER_STYLES)
    return {
        label: own.pop(model) if model in own else next(others) for label, model in models.items()
    }


@contextmanager
def svg_copies() -> Iterator[None]:
    """Inside this context each picture is also written as an SVG of the same name."""
    token = _with_svg.set(True)
    try:
        yield
    finally:
        _with_svg.reset(token)


class Figure(mpl_figure.Figure):
    """A figure that notebooks show without pyplot and whatever the backend."""

    def _repr_png_(self) -> bytes:
        return encode_figure(self, "png", dpi=_SCREEN_DPI)


@contextmanager
def new_figure(path: Path | None, width: float, height: float) -> Iterator[Figure]:
    """A figure of `width` x `height` inches in the common style, written to `path` at the end;
    without a path it is for a screen.

    The suffix of `path` chooses the format (.png or .svg). No date and no version go into the
    file, so the same numbers give the same bytes. Nothing is written where the block fails.
    """
    with rc_context(fname=Path(__file__).with_name("har.mplstyle")):
        figure = Figure(figsize=(width, height), dpi=_SCREEN_DPI if path is None else DPI)
        FigureCanvasAgg(figure)
        yield figure
        _set_fonts(figure.findobj(Text))
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        copies = [path.with_suffix(".svg")] if _with_svg.get() else []
        for out_path in dict.fromkeys([path, *copies]):
            kind = out_path.suffix.lower().removeprefix(".")
            write_atomically(out_path, encode_figure(figure, kind))


def encode_figure(figure: Figure, kind: str, **options: Any) -> bytes:
    """The file of a figure. kind: "png", "svg" or another of matplotlib's."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"Date": None}
    with _quiet_fonts():
        figure.savefig(buffer, format=kind, metadata=metadata, **options)
    return buffer.getvalue()


def text_width(figure: Figure, texts: Iterable[str], fontsize: float, **style: Any) -> float:
    """Width in inches of the widest of `texts`, as the figure would show them; 0 for none."""
    drawn = [figure.text(0, 0, text, fontsize=fontsize, **style) for text in texts]
    _set_fonts(drawn)
    with _quiet_fonts():
        widths = [text.get_window_extent().width for text in drawn]
    for text in drawn:
        text.remove()
    return max(widths, default=0.0) / figure.dpi


def add_legend(figure: Figure, fontsize: float) -> None:
    """A legend below the axes, in up to four columns; for a long label, and for more than two rows,
    the figure becomes larger."""
    labels = [label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]]
    width = text_width(figure, labels, fontsize) + 0.07 * fontsize  # inches, with line and margins
    figure.set_figwidth(max(figure.get_figwidth(), width))
    columns = min(4, len(labels), int(figure.get_figwidth() / width))
    more_rows = max(0, -(-len(labels) // columns) - 2)
    figure.set_figheight(figure.get_figheight() + 0.022 * fontsize * more_rows)
    figure.legend(loc="outside lower center", ncols=columns, fontsize=fontsize)


@contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Without matplotlib's own lines on fonts: `choose_fonts` has said what is missing, once, and
    that a font has no bold letters is nothing to do about."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+")
            yield
    finally:
        logger.setLevel(level)


def _set_fonts(texts: Iterable[Text]) -> None:
    """Where the style's font lacks characters of the texts: others behind it."""
    texts = list(texts)
    fonts = choose_fonts(text.get_text() for text in texts)
    for text in texts if len(fonts) > 1 else ():
        text.set_fontfamily([font.name for font in fonts])
