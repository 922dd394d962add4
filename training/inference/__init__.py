"""What a finished run says of videos: prediction, attention, export, web page."""

from .export import describe_export, export_run, read_contract
from .predict_command import predict_videos
from .predictor import Prediction, Predictor
from .serve import serve_run

__all__ = [
    "Prediction",
    "Predictor",
    "describe_export",
    "export_run",
    "predict_videos",
    "read_contract",
    "serve_run",
]
