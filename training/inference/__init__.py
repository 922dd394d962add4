"""What a finished run says of videos: prediction, attention, export, web page."""

from .export import describe_export, export_run, read_contract
from .predict_command import predict_videos
from .predictor import Predictor
from .serve import serve_run

__all__ = [
    "Predictor", "describe_export", "export_run", "predict_videos", "read_contract",
    "serve_run",
]  # fmt: skip
