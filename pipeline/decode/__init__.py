"""A video file -> clips, uint8 [T,H,W,3]: every codec of FFmpeg, exactly the frames asked for."""

from .clips import Clip, decode_clip, decode_clips, decode_only
from .container import (
    FILE_FAULTS,
    VideoDecodeError,
    check_whole,
    describe_streams,
    open_video,
    reason,
)
from .decoder_process import DecoderError, DecoderProcess, freeze_imports
from .file_warnings import describe_warnings, summarize_warnings
from .frames import FITS, RESIZE, is_turned, resize, upright
from .images import IMAGE_FPS, IMAGE_SUFFIXES, find_images, order_images, read_image
from .timestamps import FrameClock

# Suffixes of the file names that are taken for videos, in any case, wherever videos are looked for.
VIDEO_SUFFIXES = (
    ".avi", ".mp4", ".mkv", ".webm", ".mov", ".m4v", ".divx", ".mpg", ".mpeg", ".mpe", ".vob",
    ".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf", ".gif",
)  # fmt: skip

__all__ = [
    "FILE_FAULTS",
    "FITS",
    "IMAGE_FPS",
    "IMAGE_SUFFIXES",
    "RESIZE",
    "VIDEO_SUFFIXES",
    "Clip",
    "DecoderError",
    "DecoderProcess",
    "FrameClock",
    "VideoDecodeError",
    "check_whole",
    "decode_clip",
    "decode_clips",
    "decode_only",
    "describe_streams",
    "describe_warnings",
    "find_images",
    "freeze_imports",
    "is_turned",
    "open_video",
    "order_images",
    "read_image",
    "reason",
    "resize",
    "summarize_warnings",
    "upright",
]
