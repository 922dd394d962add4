"""Videos in, answers out: `iterate_predictions`, and what `har-predict` prints of it."""

from .command import predict_videos
from .predict import iterate_predictions
from .results import Prediction, VideoPrediction

__all__ = ["Prediction", "VideoPrediction", "iterate_predictions", "predict_videos"]
