"""Tiny shard sets and checkpoints made by hand, for the tests of evaluation and prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from made_tars import make_manifest

from har import models
from har.shards import splits
from har.shards.format import Manifest, ShardInfo, save_manifest
from har.shards.transforms.temporal_sampling import eval_stride
from har.training.config import Config
from har.training.runtime import checkpoint

CLASSES = ("Punch", "Wave", "YoYo")
SHAPE = (4, 20, 24, 3)
OPTIONS = "hidden=[4],stem_channels=4"


def make_shards(
    root: Path,
    *,
    shape: tuple[int, int, int, int] = SHAPE,
    classes: tuple[str, ...] = CLASSES,
    views: int = 1,
    rule: str = "paper",
    sampling: dict[str, Any] | None = None,
    fit: str | None = None,
    groups: int = 5,
    clips: int = 2,
    draw: Callable[[str], np.ndarray] | None = None,
    side: Callable[[str], int] = lambda key: 0,
) -> Manifest:
    """A set of `groups` x `clips` videos a class: raw pixels in one file, and index and manifest.

    sampling: more of its fields. draw: key -> uint8 pixels of `shape`; None for noise. side: key ->
    subset of the split "csv".
    """
    root.mkdir()
    random = np.random.default_rng(0)
    rows, data, names, video = [], b"", [], 0
    for label, name in enumerate(classes):
        for group in range(1, groups + 1):
            names.append(f"{name}/g{group:02d}")
            for clip in range(1, clips + 1):
                for view in range(views):
                    key = f"v_{name}_g{group:02d}_c{clip:02d}" + (f"+{view}" if view else "")
                    noise = random.integers(0, 256, shape, np.uint8)
                    pixels = (draw(key) if draw else noise).tobytes()
                    digest = xxhash.xxh3_64_intdigest(pixels)
                    number = len(names) - 1
                    place = (0, len(data), label, number, video, view, side(key))
                    rows.append((key, *place, 9, 0, digest))
                    data += pixels
                video += 1
    (root / "shard-000000.tar").write_bytes(data)
    shards = (ShardInfo("shard-000000.tar", len(rows), len(data), "0" * 32),)
    made = make_manifest(
        rows, clip_shape=shape, sampling={"rule": rule, **(sampling or {})}, classes=classes,
        groups=tuple(names), grouping="ucf101", shards=shards,
        resize={"fit": fit} if fit else {},
    )  # fmt: skip
    return save_manifest(made, root)


def make_run(folder: Path, clips: Manifest, **settings: Any) -> Path:
    """A run folder with an untrained network (ConvLSTM unless told) as best.pt."""
    folder.mkdir()
    given = {"model": "convlstm", "model_options": OPTIONS, "frames": 4, "batch_size": 4}
    config = Config(**{**given, "shards": str(clips.root), "size": 16, **settings}).resolve()
    more = {"weights": "none"} if config.model == "r3d" else {}
    model = models.build(config.model, len(clips.classes), seed=1, **config.options, **more)
    split = splits.make_split(clips, config.split, config.split_seed)
    state = {
        "model_name": config.model,
        "model_options": config.options,
        "model": model.state_dict(),
        "epoch": 3,
        "config": asdict(config),
        "classes": list(clips.classes),
        "split": split.describe(),
        "manifest_digest": clips.digest,
        "preprocessing": {
            "frames": config.frames,
            "crop_size": [16, 16],
            "resize_size": [18, 24],
            "mean": [0.4, 0.4, 0.4],
            "std": [0.2, 0.2, 0.2],
            "sampling": clips.sampling,
            "clip_shape": list(clips.clip_shape),
            **clips.resize,
            **({"frame_stride": stride} if (stride := eval_stride(config.frame_strides)) else {}),
        },
    }
    checkpoint.save(state, folder / "best.pt")
    return folder
