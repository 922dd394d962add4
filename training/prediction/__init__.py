"""`har-predict`: videos in, answers as text, CSV or JSON and pictures out."""

from .command import predict_videos

__all__ = ["predict_videos"]
