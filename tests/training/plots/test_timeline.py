"""The timeline's picture: which classes it shows, and in which order."""

from pathlib import Path

import numpy as np
from PIL import Image

from har.training.plots import plot_timeline
from har.training.plots.timeline import leading_classes


def test_of_many_classes_those_that_lead_longest_are_drawn_in_order_of_their_first_lead():
    borders, labels = (0, 1, 4, 5, 9), (3, 0, 2, 1)
    assert leading_classes(borders, np.eye(4)[list(labels)]) == [3, 0, 2, 1]
    assert leading_classes(borders, np.eye(4)[list(labels)], max_classes=2) == [0, 1]


def test_the_picture_has_a_row_for_each_class_that_leads(tmp_path: Path):
    names = [f"Class{n}" for n in range(101)]
    probabilities = np.random.default_rng(0).random((12, 101)) * 0.1
    probabilities[range(12), np.arange(12) // 4] = 0.9
    data = (range(13), probabilities, names, "a$b$.avi")
    with Image.open(plot_timeline(tmp_path / "t.png", *data)) as picture:
        assert picture.width > picture.height
    svg = plot_timeline(tmp_path / "t.svg", *data).read_text()
    assert all(name in svg for name in ("Class0", "Class1", "Class2", "a$b$.avi"))
    assert "Class3" not in svg
