"""How objects show themselves in a notebook: small HTML that needs no file and no network.

Everything that is put in is escaped: class names, keys and paths are the user's.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STRIP_FRAMES = 6
_STRIP_HEIGHT = 64  # pixels


def as_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a pandas DataFrame; without pandas as they are, a list of dicts."""
    try:
        import pandas
    except ImportError:
        return list(rows)
    return pandas.DataFrame(list(rows))


def html_properties(title: str, values: Mapping[str, object], *more: str) -> str:
    """A title above a table of names and values. more: HTML that follows."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return f"<div><b>{escape(title)}</b><table>{rows}</table>{''.join(more)}</div>"


def html_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table; a cell that is HTML already is given as `Html`."""
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Html(str):
    """A cell of a table that is not escaped again."""


def _cell(value: object) -> str:
    text = value if isinstance(value, Html) else escape(str(value))
    return f'<td style="text-align:left">{text}</td>'


def encode_strip(clip: NDArray[np.uint8]) -> bytes:
    """uint8 [T,H,W,3] -> some of its frames side by side, a JPEG of a few KB."""
    count = min(_STRIP_FRAMES, len(clip))
    frames = clip[np.linspace(0, len(clip) - 1, count).round().astype(int)]  # [F,H,W,3]
    picture = Image.fromarray(np.concatenate(list(frames), axis=1))
    width = max(1, round(picture.width * _STRIP_HEIGHT / picture.height))
    buffer = io.BytesIO()
    picture.resize((width, _STRIP_HEIGHT)).save(buffer, "jpeg", quality=75)
    return buffer.getvalue()


def html_strip(jpeg: bytes, text: str = "") -> Html:
    """A strip of `encode_strip` inside the page. text: instead of it, for those who cannot see."""
    data = base64.b64encode(jpeg).decode()
    return Html(f'<img alt="{escape(text)}" src="data:image/jpeg;base64,{data}">')
