"""Pictures with matplotlib: curves of training, results by class, filters, timelines.

It imports nothing else of `har.training`, so every part of it may draw.
"""

from .classes import choose_examples, plot_class_accuracy, plot_confusion, plot_examples
from .curves import Curves, plot_all_curves, plot_costs, plot_model_curves, plot_run
from .filters import plot_filters
from .precision_recall import Curve, plot_precision_recall
from .style import DISPLAY_NAMES, Figure, Style, label_styles, new_figure, svg_copies
from .timeline import plot_timeline

__all__ = [
    "DISPLAY_NAMES", "Curve", "Curves", "Figure", "Style", "choose_examples", "label_styles",
    "new_figure", "plot_all_curves", "plot_class_accuracy", "plot_confusion", "plot_costs",
    "plot_examples", "plot_filters", "plot_model_curves", "plot_precision_recall", "plot_run",
    "plot_timeline", "svg_copies",
]  # fmt: skip
