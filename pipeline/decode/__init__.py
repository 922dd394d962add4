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
from .images import (
    IMAGE_FPS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    find_images,
    order_images,
    read_image,
)
from .timestamps import FrameClock

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
