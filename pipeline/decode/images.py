"""Suffixes of video files; folders of numbered images, whose frames are in that order.

Pillow decodes them, so an image looks as in any viewer. A folder says nothing of its rate:
`IMAGE_FPS`, which is FFmpeg's for images too, stands in.
"""

import re
import struct
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import av
import numpy as np
from PIL import Image, ImageOps

# Suffixes of the file names that are taken for videos, in any case, wherever videos are looked for.
VIDEO_SUFFIXES = (
    ".avi", ".mp4", ".mkv", ".webm", ".mov", ".m4v", ".divx", ".mpg", ".mpeg", ".mpe", ".vob",
    ".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf", ".gif",
)  # fmt: skip
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
IMAGE_FPS = 25.0
_NUMBERED = re.compile(r"(.*?)([0-9]+)")
_FAULTS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def order_images(names: Iterable[str]) -> list[str]:
    """The image files among `names` (of one folder) by their numbers: the frames of a video.

    Hidden ones are none: macOS leaves `._00001.jpg` beside each file. [] where they are not one
    sequence: one image, a name without a number, two beginnings (`img_00001.jpg`,
    `flow_x_00001.jpg`), a number twice.
    """
    images = [
        name
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES) and not PurePosixPath(name).name.startswith(".")
    ]
    matches = {name: _NUMBERED.fullmatch(PurePosixPath(name).stem) for name in images}
    numbers = {name: int(match[2]) for name, match in matches.items() if match}
    beginnings = {match[1] for match in matches.values() if match}
    is_sequence = len(beginnings) == 1 and len(set(numbers.values())) == len(images) > 1
    return sorted(numbers, key=numbers.__getitem__) if is_sequence else []


def find_images(folder: Path) -> list[Path]:
    """The frames of an image folder, in order; [] for any other folder. Raises OSError."""
    return [folder / name for name in order_images(path.name for path in folder.iterdir())]


def read_image(path: Path) -> av.VideoFrame:
    """An RGB frame, upright. Raises OSError, which names the file."""
    try:
        with Image.open(path) as image:
            rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))  # [H,W,3]
    except _FAULTS as error:
        raise OSError(f"{path.name} is no whole image") from error
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
