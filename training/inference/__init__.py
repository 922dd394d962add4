"""What a run says of a video: probabilities, windows, attention, labelled copies; export."""

from .export import describe_export, export_run
from .predictor import Predictor

__all__ = ["Predictor", "describe_export", "export_run"]
