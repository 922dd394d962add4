"""Pictures: what is drawn is read back from the figure, layout and geometry are measured."""

import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from har.training.plots import (
    DISPLAY_NAMES,
    Curves,
    filters,
    label_styles,
    plot_all_curves,
    plot_class_accuracy,
    plot_confusion,
    plot_costs,
    plot_examples,
    plot_filters,
    plot_model_curves,
    plot_precision_recall,
    plot_timeline,
    style,
)


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "DPI", 200)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The Figure objects that were saved."""
    from matplotlib.figure import Figure

    saved: list[Any] = []
    save = Figure.savefig

    def keep(self: Any, *args: Any, **options: Any) -> None:
        save(self, *args, **options)
        saved.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def _curve(model: str = "convlstm", epochs: int = 4, top: float = 3.0) -> Curves:
    lines = [
        {"epoch": e, "train_loss": top / e, "val_loss": top / e + 0.5}
        | {"train_acc": 1 - 0.9 / e, "val_acc": 0.8 - 0.7 / e}
        for e in range(1, epochs + 1)
    ]
    return Curves(model, DISPLAY_NAMES[model], lines, best_epoch=epochs)


def _with_losses(train: list[float], val: list[float]) -> Curves:
    lines = [
        {"epoch": n, "train_loss": t, "val_loss": v, "train_acc": 0.0, "val_acc": 0.0}
        for n, (t, v) in enumerate(zip(train, val, strict=True), 1)
    ]
    return Curves("r3d", "R3D", lines, best_epoch=1)


def _lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


def _no_overlap(labels: list[Any]) -> bool:
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    return not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_model_curves_draw_both_sides_and_ring_the_best_epoch(tmp_path: Path, drawn: list):
    run = _curve()
    plot_model_curves(tmp_path / "loss.png", [run], "loss")
    lines = _lines(drawn[0].axes[0])
    assert lines["Training"].get_ydata().tolist() == run.values("train", "loss")
    assert lines["Validation"].get_ydata().tolist() == run.values("val", "loss")
    ring = lines["Best checkpoint (epoch 4)"]
    assert (ring.get_xdata().tolist(), ring.get_ydata().tolist()) == (
        [4],
        run.values("val", "loss")[3:],
    )


def test_an_exploding_first_loss_switches_to_a_log_axis(tmp_path: Path, drawn: list):
    plot_model_curves(tmp_path / "a.png", [_curve(epochs=2)], "loss")
    plot_model_curves(tmp_path / "b.png", [_curve(epochs=2, top=5000.0)], "loss")
    losses = [18.6, 1.8, 1.7]  # little more than a decade: minor ticks have labels
    for curves in (
        _with_losses([9000.0], [2.0]),
        # one wild epoch of validation, as batch norm gives it when training begins
        _with_losses([1.0, 0.5, 0.33], [16.6, 4.8, 0.78]),
        _with_losses(losses, losses),
    ):
        plot_model_curves(tmp_path / "c.png", [curves], "loss")
    scales = [figure.axes[0].get_yscale() for figure in drawn]
    assert scales == ["linear", "linear", "log", "log", "log"]
    for figure in drawn[2:]:
        (axes,) = figure.axes
        ticks = (*axes.get_yticklabels(), *axes.get_yticklabels(minor=True))
        labels = [label.get_text() for label in ticks]
        assert any(labels)
        assert all(re.fullmatch(r"[\d.e+-]*", label) for label in labels)  # numbers, no formulas


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("epochs", [1, 3, 50, 200])
def test_accuracy_goes_from_0_to_1_over_whole_epochs_whose_labels_do_not_overlap(
    tmp_path: Path, drawn: list, epochs: int
):
    plot_model_curves(tmp_path / "acc.png", [_curve(epochs=epochs)], "acc")
    axes = drawn[0].axes[0]
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(float(tick).is_integer() for tick in ticks)
    assert _no_overlap(axes.get_xticklabels())
    low, high = axes.get_ylim()
    assert low == 0
    assert 1 < high < 1.1


def test_a_loss_that_is_not_finite_leaves_a_gap_and_is_no_error(tmp_path: Path):
    plot_all_curves(tmp_path / "x.png", [_with_losses([float("nan")], [1.0])], "loss")
    assert (tmp_path / "x.png").stat().st_size > 1000


def _legend(figure: Any) -> dict[str, tuple[str, str]]:
    """Label -> color and marker, of the legend below the axes."""
    (legend,) = figure.legends
    looks = [(line.get_color(), line.get_marker()) for line in legend.legend_handles]
    return dict(zip([text.get_text() for text in legend.get_texts()], looks, strict=True))


def test_all_models_share_one_scale_and_seeds_are_named_once(tmp_path: Path, drawn: list):
    runs = [_curve("r3d"), _curve("r3d", top=2.0), _curve("convlstm", epochs=7)]
    plot_all_curves(tmp_path / "all.png", runs, "loss")
    above, below = drawn[0].axes
    assert above.get_ylim() == below.get_ylim()
    assert _legend(drawn[0]) == label_styles({"R3D": "r3d", "ConvLSTM": "convlstm"})


def test_each_label_has_a_color_and_a_marker_of_its_own_the_first_of_a_model_the_models():
    recipes = {f"{model}, recipe {n}": model for n in range(2) for model in DISPLAY_NAMES}
    styles = label_styles({**recipes, "mine": "mynet:Tiny", "other": "mynet:Other"})
    assert len({color for color, _ in styles.values()}) == 10
    assert len({marker for _, marker in styles.values()}) == 10
    for model, own in label_styles({model: model for model in DISPLAY_NAMES}).items():
        assert styles[f"{model}, recipe 0"] == own


def test_recipes_of_one_model_are_told_apart_in_every_picture(tmp_path: Path, drawn: list):
    labels = ["recipe a", "recipe b"]
    styles = label_styles(dict.fromkeys(labels, "convlstm"))
    runs = [replace(_curve(), label=one, style=styles[one]) for one in ("recipe a", *labels)]
    plot_model_curves(tmp_path / "m.png", runs, "loss")
    plot_all_curves(tmp_path / "a.png", runs, "loss")
    plot_class_accuracy(tmp_path / "c.png", ["x"], {label: [0.5] for label in labels}, styles)
    assert set(_legend(drawn[0])) == {"Training (dashed)", "Best checkpoints", *labels}
    for figure in drawn:
        assert {label: _legend(figure)[label] for label in labels} == styles
    lines = [{**line, "val_loss": None} for line in runs[2].metrics]
    plot_model_curves(tmp_path / "n.png", [runs[0], replace(runs[2], metrics=lines)], "loss")
    assert set(labels) < set(_legend(drawn[-1]))  # without a val subset, too
    step = {label: [(np.array([1.0]), np.array([1.0]))] for label in labels}
    areas = {label: [1.0] for label in labels}
    plot_precision_recall(tmp_path / "p.png", ["x"], step, areas, styles)
    colors = [text.get_color() for text in drawn[-1].axes[0].texts if text.get_text() == "1.00"]
    assert colors == [color for color, _ in styles.values()]


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("classes", [2, 3, 6, 101])
def test_confusion_names_every_class_without_overlap(tmp_path: Path, drawn: list, classes: int):
    names = [f"HandstandPushups{n}" for n in range(classes)]
    matrix = np.diag(np.arange(classes) + 1)
    plot_confusion(tmp_path / "c.png", matrix, names, "R3D on test")
    axes = drawn[0].axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == names
        assert labels[0].get_fontsize() >= 6
        assert _no_overlap(labels)
    counts = [text.get_text() for text in axes.texts]
    assert counts == ([str(n + 1) for n in range(classes)] if classes <= 25 else [])


LONG = [f"{n}_an_action_whose_name_is_longer_than_fifty_letters_{'x' * n}" for n in range(3)]
PREDICTIONS = [
    {"true": LONG[0], "predicted": LONG[0], "probability": 0.9},
    {"true": LONG[1] * 2, "predicted": LONG[2], "probability": 0.8},
]
R3D = label_styles({"R3D": "r3d"})
CLIPS = [np.zeros((16, 12, 16, 3), np.uint8)] * 2


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize(
    ("draw", "axes_width"),  # inches that are left for what the picture shows
    [
        (lambda path: plot_confusion(path, np.eye(3), LONG, "R3D on test"), 1.2),
        (lambda path: plot_confusion(path, np.eye(30), LONG * 10, "R3D on test"), 3.0),
        (lambda path: plot_class_accuracy(path, LONG, {"R3D": [0.1, 0.5, 0.9]}, R3D), 2.5),
        (lambda path: plot_timeline(path, [0, 1, 2, 3], np.eye(3), LONG, LONG[2] + ".mp4"), 3.5),
        (lambda path: plot_examples(path, PREDICTIONS, CLIPS), 6.0),
    ],
)
def test_names_of_more_than_fifty_letters_are_whole_and_leave_room(
    tmp_path: Path, drawn: list, draw: Any, axes_width: float
):
    draw(tmp_path / "x.png")
    (figure,) = drawn
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert any("longer_than_fifty" in text.get_text() for text in texts)
    for text in texts:
        if "longer_than_fifty" in text.get_text():
            box = text.get_window_extent()
            assert (box.x0, box.y0) >= (-1, -1), text
            assert box.x1 <= figure.bbox.x1 + 1, text
            assert box.y0 >= -1, text
            assert box.y1 <= figure.bbox.y1 + 1, text
    assert figure.axes[0].get_window_extent().width / figure.dpi > axes_width


def test_text_that_matplotlibs_font_lacks_is_drawn_by_another(
    tmp_path: Path, drawn: list, made_font: str
):
    plot_confusion(tmp_path / "c.png", np.eye(2), ["走", "YoYo"], "t")
    for label in drawn[0].axes[0].get_yticklabels():
        assert label.get_fontfamily() == ["DejaVu Sans", made_font]


def test_confusion_shows_shares_of_the_true_class_and_an_empty_class_as_none(
    tmp_path: Path, drawn: list
):
    matrix = np.array([[3, 1], [0, 0]])
    plot_confusion(tmp_path / "c.png", matrix, ["a", "b"], "t")
    shown = drawn[0].axes[0].images[0].get_array()
    assert shown.tolist() == [[0.75, 0.25], [0, 0]]


def test_per_class_puts_the_hardest_class_on_top(tmp_path: Path, drawn: list):
    recalls = {"R3D": [0.9, 0.1, 0.5], "ConvLSTM": [0.7, 0.3, 0.5]}
    styles = label_styles({"R3D": "r3d", "ConvLSTM": "convlstm"})
    plot_class_accuracy(tmp_path / "p.png", ["x", "y", "z"], recalls, styles)
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["y", "z", "x"]
    assert axes.yaxis_inverted()
    assert _lines(axes)["R3D"].get_xdata().tolist() == [0.1, 0.5, 0.9]


def test_precision_recall_of_a_hundred_classes_grows_instead_of_shrinking_its_text(tmp_path: Path):
    random = np.random.default_rng(0)
    names = [f"HandstandPushups{n}" for n in range(101)]
    areas = {"R3D": random.random(101).tolist(), "ConvLSTM": random.random(101).tolist()}
    areas["R3D"][5] = areas["ConvLSTM"][5] = float("nan")
    recall = np.linspace(0.1, 1, 10)
    curves = {label: [(1 - recall / 2, recall)] * 101 for label in areas}
    path = tmp_path / "pr.png"
    styles = label_styles({"R3D": "r3d", "ConvLSTM": "convlstm"})
    plot_precision_recall(path, names, curves, areas, styles)
    with Image.open(path) as picture:
        assert picture.width >= 7 * style.DPI
        assert picture.height >= 17 * 1.1 * style.DPI  # rows of six


def test_a_cost_that_was_not_measured_says_so(tmp_path: Path, drawn: list):
    styles = label_styles({"R3D": "r3d", "b": "x"})
    plot_costs(tmp_path / "c.png", styles, {"Peak memory (GB)": [2.5, None]})
    assert [text.get_text().strip() for text in drawn[0].axes[0].texts] == ["2.5", "not measured"]


def test_long_names_of_runs_stay_inside_the_picture(tmp_path: Path, drawn: list):
    labels = [f"ResNet3D [grouped, 2 classes], epochs {n}, lr 0.001, momentum 0.9" for n in (1, 2)]
    styles = label_styles(dict.fromkeys(labels, "resnet3d"))
    plot_costs(tmp_path / "c.png", styles, {"Time": [1.0, 2.0]})
    recalls = {label: [0.5, 1.0] for label in labels}
    plot_class_accuracy(tmp_path / "p.png", ["x", "y"], recalls, styles)
    curves = [replace(_curve(), label=label) for label in labels]
    plot_model_curves(tmp_path / "m.png", curves, "acc")
    plot_all_curves(tmp_path / "a.png", curves, "acc")
    step = (np.array([1.0, 0.5]), np.array([0.5, 1.0]))
    plot_precision_recall(
        tmp_path / "r.png",
        ["x", "y"],
        {label: [step, step] for label in labels},
        {label: np.array([0.5, 0.5]) for label in labels},
        styles,
    )
    for figure in drawn:
        texts = [text for text in figure.findobj(Text) if "ResNet3D [" in text.get_text()]
        assert len(texts) >= 2  # matplotlib keeps some ticks that are not drawn
        for box in [text.get_window_extent() for text in texts]:
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_a_class_name_is_never_read_as_a_formula(tmp_path: Path):
    names = ["a$b$c", r"$\\frac{$"]
    plot_confusion(tmp_path / "c.png", np.eye(2), names, "t")
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path):
    first = plot_model_curves(tmp_path / "a.png", [_curve()], "loss").read_bytes()
    assert plot_model_curves(tmp_path / "b.png", [_curve()], "loss").read_bytes() == first


@pytest.mark.parametrize("backend", ["module://not_installed", "TkAgg"])
def test_drawing_needs_no_display_and_no_pyplot_whatever_mplbackend_says(tmp_path, backend: str):
    code = (
        "import sys; from har.training.plots import plot_costs; from pathlib import Path;"
        f"plot_costs(Path({str(tmp_path / 'x.png')!r}), {{'a': ('red', 'o')}}, {{'t': [1.0]}});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {**os.environ, "MPLBACKEND": backend}
    command = [sys.executable, "-W", "error", "-c", code]
    subprocess.run(command, check=True, timeout=60, env=environment)


# ------------------------------------------------------------------ figure 16


def test_weights_are_scaled_from_the_papers_range_to_one_and_clipped():
    values = filters.scale_weights(np.array([-0.6, -0.3, -0.15, 0.0, 0.3, 9.0]))
    assert values == pytest.approx(np.array([-1, -1, -0.5, 0, 1, 1]))


def test_figure_16a_is_five_rows_of_nine_filters_enlarged_four_times_in_color():
    weights = np.random.default_rng(0).uniform(-0.3, 0.3, (45, 3, 1, 7, 7))
    sheet = filters.rgb_mosaic(weights, columns=9)
    assert sheet.shape == (5 * (7 * 4 + 4) + 4, 9 * (7 * 4 + 4) + 4, 3)
    for number in (0, 8, 9, 44):
        y, x = (number // 9) * 32 + 4, (number % 9) * 32 + 4
        cell = sheet[y : y + 28, x : x + 28]
        expected = np.kron(weights[number, :, 0].transpose(1, 2, 0), np.ones((4, 4, 1)))
        assert cell == pytest.approx((expected / 0.3 + 1) / 2)
    gaps = np.ones(sheet.shape[:2], bool)
    for number in range(45):
        y, x = (number // 9) * 32 + 4, (number % 9) * 32 + 4
        gaps[y : y + 28, x : x + 28] = False
    assert (sheet[gaps] == 1).all()


def test_figure_16b_is_one_row_of_64_matrices_of_45_channels_by_3_frames():
    weights = np.random.default_rng(1).uniform(-0.5, 0.5, (64, 45, 3, 1, 1))
    sheet = filters.temporal_mosaic(weights)
    assert sheet.shape == (45 * 4 + 8, 64 * (3 * 4 + 4) + 4)
    cell = sheet[4 : 4 + 180, 4 + 63 * 16 : 4 + 63 * 16 + 12]
    expected = np.clip(np.kron(weights[63, :, :, 0, 0], np.ones((4, 4))) / 0.3, -1, 1)
    assert cell == pytest.approx(expected)
    drawn = sheet[~np.isnan(sheet)]
    assert len(drawn) == 64 * 45 * 3 * 16
    assert (drawn.min(), drawn.max()) == (-1, 1)


def test_frames_of_a_filter_lie_side_by_side():
    weights = np.zeros((64, 3, 3, 7, 7))
    weights[0, :, 2] = 0.1  # the last frame of the first filter is white
    sheet = filters.rgb_mosaic(weights, 8, limit=0.1)
    assert sheet.shape == (8 * 32 + 4, 8 * (3 * 28 + 4) + 4, 3)
    assert (sheet[4:32, 4 : 4 + 56] == 0.5).all()
    assert (sheet[4:32, 4 + 56 : 4 + 84] == 1).all()


@pytest.mark.parametrize("model", ["r2plus1d", "resnet3d", "r3d", "convlstm"])
def test_the_first_layer_of_every_model_is_found_and_drawn(tmp_path: Path, model: str):
    from har import models

    options = {"weights": "none"} if "weights" in models.options_of(model) else {}
    state = models.build(model, 3, seed=0, **options).state_dict()
    layers = filters.first_layer_weights(state)
    shapes = [weights.shape for weights in layers]
    expected = {
        "r2plus1d": [(45, 3, 1, 7, 7), (64, 45, 3, 1, 1)],
        "resnet3d": [(64, 3, 3, 7, 7)],
        "r3d": [(64, 3, 3, 7, 7)],
    }
    assert model not in expected or shapes == expected[model]
    assert len(layers) == (2 if model == "r2plus1d" else 1)
    assert layers[0].shape[1] == 3
    path = plot_filters(tmp_path / "f.png", model, state)
    assert path is not None
    with Image.open(path) as picture:
        assert picture.width > 250


def test_a_model_without_convolutions_has_no_picture(tmp_path: Path):
    assert plot_filters(tmp_path / "f.png", "x", {"fc.bias": np.zeros(3)}) is None
