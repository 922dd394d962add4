"""Fonts: DejaVu Sans first, others only for what it lacks, one warning where none fits."""

import numpy as np
import pytest
from PIL import ImageFont

from har import fonts
from har.fonts import MissingGlyphWarning, choose_fonts, load_font
from har.pipeline.inspect import preview
from har.training.inference import annotate


def names(*texts: str) -> list[str]:
    return [entry.name for entry in choose_fonts(texts)]


@pytest.mark.usefixtures("made_font")
@pytest.mark.parametrize("text", ["YoYo", "Бокс", "Ώθηση", "a\nb", ""])
def test_what_matplotlibs_own_font_has_needs_no_other(text: str) -> None:
    assert names(text) == ["DejaVu Sans"]


def test_another_font_is_chosen_for_the_characters_it_has(made_font: str) -> None:
    assert names("YoYo", "走") == ["DejaVu Sans", made_font]
    assert load_font("走 3", 12).getname()[0] == made_font
    assert load_font("YoYo", 12).getname()[0] == "DejaVu Sans"


@pytest.mark.usefixtures("made_font")
def test_characters_that_no_font_has_are_warned_about_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fonts, "_warned", set())
    rare = "\U00016f00\U00016f01"  # Miao
    with pytest.warns(MissingGlyphWarning, match="no font on this machine has") as caught:
        assert names(f"走{rare}")[0] == "DejaVu Sans"
    assert len(caught) == 1
    names(rare)


@pytest.mark.usefixtures("made_font")
def test_captions_and_labels_of_pillow_are_drawn_in_such_a_font(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[str] = []

    def spy(text: str, size: float) -> ImageFont.FreeTypeFont:
        font = load_font(text, size)
        used.append(str(font.getname()[0]))
        return font

    monkeypatch.setattr(preview, "load_font", spy)
    monkeypatch.setattr(annotate, "load_font", spy)
    preview._draw([("走 走", np.zeros((2, 20, 30, 3), np.uint8))])
    annotate.draw_label("走", 0.5, 90, 20)
    assert used[:3] == ["Made Sans", "Made Sans", "DejaVu Sans"]  # the last is of the number
