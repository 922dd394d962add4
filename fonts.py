"""Fonts of this machine for text in any script, for pictures by matplotlib and by Pillow.

DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Arabic and Hebrew letters.
What it lacks (Chinese, Japanese, Korean, Thai, Devanagari, ...) is looked for in the fonts that are
installed; characters that none has are drawn as boxes, which is warned about once.
"""

import warnings
from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager
from matplotlib.font_manager import FontEntry
from PIL import ImageFont

from .errors import HarWarning

_FIRST = "DejaVu Sans"
_NOT_TEXT = ("Last Resort", "cm", "STIX")  # boxes with code points; fonts of formulas
_warned: set[str] = set()


class MissingGlyphWarning(HarWarning):
    """No font on this machine has some characters of a picture's text."""


def choose_fonts(texts: Iterable[str]) -> list[FontEntry]:
    """Fonts that have all characters of `texts` between them, where this machine has such; DejaVu
    Sans first."""
    entries = sorted(font_manager.fontManager.ttflist, key=_preference)
    chosen = [next(entry for entry in entries if entry.name == _FIRST)]
    missing = {c for text in texts for c in text if c.isprintable()} - _characters(chosen[0].fname)
    for entry in entries:
        if not missing:
            break
        if not entry.name.startswith(_NOT_TEXT) and missing & _characters(entry.fname):
            chosen.append(entry)
            missing -= _characters(entry.fname)
    if missing - _warned:
        _warned.update(missing)
        shown = f"{''.join(sorted(missing)[:20])!r}{' and more' * (len(missing) > 20)}"
        warnings.warn(
            f"no font on this machine has {shown}: pictures show boxes for them; install a font, "
            "e.g. Noto Sans CJK (apt install fonts-noto-cjk).",
            MissingGlyphWarning,
            stacklevel=2,
        )
    return chosen


def load_font(text: str, size: float) -> ImageFont.FreeTypeFont:
    """For Pillow, which takes one font at a time: the one that has most of `text`."""
    best = max(choose_fonts([text]), key=lambda entry: len(_characters(entry.fname) & set(text)))
    return ImageFont.truetype(best.fname, size)


def _preference(entry: FontEntry) -> tuple[bool, bool, bool, str]:
    """Upright regular sans-serif fonts first; by name, so that the choice does not change."""
    is_regular = entry.style == "normal" and entry.weight in (400, "normal", "regular")
    is_serif = "serif" in entry.name.lower() or "mono" in entry.name.lower()
    return entry.name != _FIRST, not is_regular, is_serif, entry.name


@cache
def _characters(path: str) -> frozenset[str]:
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
