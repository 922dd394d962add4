"""A small untrained run for real video files, for the tests of prediction and what shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_shards import make_run, make_shards

CLASSES = ("CircleClockwise", "SwipeLeft", "SwipeUp")
SMALL = {
    "convlstm": "hidden=[4],stem_channels=4",
    "resnet3d": "width=4",
    "r2plus1d": "width=4",
    "r3d": "",
}


def make_video_run(
    folder: Path, model: str = "convlstm", rule: str = "paper", fit: str | None = None,
    **sampling: Any,
) -> Path:  # fmt: skip
    """A run folder of `model` for clips of 6 frames 36x48, or 48x24 with a `fit`, cut to 16x16;
    `folder` is made."""
    folder.mkdir()
    size = (48, 24) if fit else (36, 48)
    clips = make_shards(
        folder / "shards", shape=(6, *size, 3), classes=CLASSES, clips=1, rule=rule,
        sampling=sampling, fit=fit,
    )  # fmt: skip
    settings = {"model": model, "model_options": SMALL[model], "frames": 6}
    return make_run(folder / "run", clips, **settings)
