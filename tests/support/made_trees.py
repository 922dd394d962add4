"""Data sets as trees of files without content, for tests that look at names alone."""

from __future__ import annotations

import os
from pathlib import Path

from har.pipeline.dataset import Dataset
from har.shards.format import SUBSETS


def touch(root: Path, *names: str | bytes) -> Path:
    """Make the files `names` (bytes: of any encoding), with folders where they end in `/`."""
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(path if path.endswith(b"/") else os.path.dirname(path), exist_ok=True)
        if not path.endswith(b"/"):
            Path(os.fsdecode(path)).write_bytes(b"x")
    return root


def images(folder: str, count: int = 3, name: str = "{:05d}.jpg") -> list[str]:
    """Names of the numbered images of a clip."""
    return [f"{folder}/{name.format(number)}" for number in range(1, count + 1)]


def rows(data: Dataset) -> dict[str, str]:
    """path -> "subset class group"."""
    return {
        video.path: f"{SUBSETS[video.subset] or '-'} {data.classes[video.label]} {video.group}"
        for video in data.videos
    }


def left_out(data: Dataset) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {entry.reason: (entry.count, entry.names) for entry in data.left_out}
