"""Frames of a camera: through FFmpeg's device input, or OpenCV where it is installed.

Odd: PyAV's wheels are built with few device inputs, which differ from system to system; so the
device is tried, not looked up, and OpenCV is the second try. OpenCV is no dependency of ours.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import HarError
from . import predictor
from .predictor import Frame

_FPS = 30.0  # where a camera does not say


class CameraError(HarError):
    """No camera, or one that gives nothing; one sentence."""


def device(number: int) -> tuple[str, str]:
    """What to open, and as which of FFmpeg's input formats, on this system."""
    if sys.platform == "darwin":
        return str(number), "avfoundation"
    if sys.platform == "win32":
        return f"video={number}", "dshow"
    return f"/dev/video{number}", "v4l2"


def frames(number: int) -> Iterator[Frame]:
    """Frames of camera `number` until it ends. Raises CameraError where there is none."""
    if number < 0:
        raise CameraError(f"--camera {number} does not work: give 0 for the first camera.")
    name, format = device(number)
    if name.startswith("/") and not Path(name).exists():
        raise CameraError(
            f"there is no camera {number} here ({name} does not exist): plug one in, give another "
            "number, or predict a video file."
        )
    given = False
    try:
        for frame in predictor.read_frames(name, format=format):
            given = True
            yield frame
    except ValueError as error:
        if given:  # unplugged: what came so far has been answered
            raise CameraError(f"camera {number} stopped ({error}).") from error
        if importlib.util.find_spec("cv2") is None:
            raise CameraError(
                f"camera {number} cannot be read through FFmpeg ({error}): close the program that "
                "uses it, or 'pip install opencv-python' for another way to it."
            ) from error
        yield from _by_opencv(number)


class _Picture:
    """An OpenCV frame, BGR uint8 [H,W,3], with what `Frame.rgb` asks of a picture."""

    rotation = 0

    def __init__(self, bgr: np.ndarray) -> None:
        self._bgr = bgr

    def to_ndarray(self, format: str) -> np.ndarray:
        assert format == "rgb24"
        return np.ascontiguousarray(self._bgr[..., ::-1])


def _by_opencv(number: int) -> Iterator[Frame]:
    cv2: Any = importlib.import_module("cv2")
    camera = cv2.VideoCapture(number)
    try:
        fps, begin, count = camera.get(cv2.CAP_PROP_FPS) or _FPS, time.monotonic(), 0
        while True:
            good, bgr = camera.read()
            if not good:
                break
            yield Frame(count, time.monotonic() - begin, fps, _Picture(bgr))
            count += 1
    finally:
        camera.release()
    if count == 0:
        raise CameraError(f"camera {number} gives no picture: give another number.")
