"""Contact sheets: look at what is in a shard set. One row a clip: its name, its frames.

Odd: with no key asked for, clips are taken evenly over classes, so that a sheet of twelve shows
twelve classes where there are as many.
"""

from __future__ import annotations

import fnmatch
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import HarError
from ...shards.format import shard_set
from ...shards.format.reader import ClipReader
from ...shards.format.shard_set import Manifest

if TYPE_CHECKING:
    from PIL.Image import Image

CAPTION = 14  # pixels of height for the text above each row


class PreviewError(HarError):
    """A sheet that cannot be drawn as asked; the text is one sentence."""


def sheet(
    root: Path | str,
    *,
    rows: int = 12,
    frames: int = 8,
    classes: tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
) -> Image:
    """-> the picture. classes / keys: show only these; `*` and `?` work. rows, frames: at most.

    Raises PreviewError where nothing fits, ShardSetError for a set that cannot be read.
    """
    clips = shard_set.load(root)
    chosen = choose(clips, rows, classes, keys)
    T = clips.clip_shape[0]
    shown = np.unique(np.linspace(0, T - 1, min(frames, T)).round().astype(int))
    with closing(ClipReader(clips)) as reader:
        strips = [(_caption(clips, sample), reader.read(sample)[shown]) for sample in chosen]
    return draw(strips)


def choose(
    clips: Manifest, rows: int, classes: tuple[str, ...], keys: tuple[str, ...]
) -> list[int]:
    """Sample ids: those that fit, evenly over classes, in the order of their keys."""
    names, labels = clips.keys(), clips.index["label"]
    fits = [
        sample
        for sample in np.argsort(clips.index["key"], kind="stable").tolist()
        if _matches(clips.classes[labels[sample]], classes) and _matches(names[sample], keys)
    ]
    if not fits:
        raise PreviewError(
            f"no clip of {clips.root} is of class {', '.join(classes) or 'any'} and has a key like "
            f"{', '.join(keys) or 'any'}: classes are {', '.join(clips.classes[:5])} ..., keys are "
            f"like {names[0]}."
        )
    turn: dict[int, int] = {}
    ranked = []
    for sample in fits:
        label = int(labels[sample])
        turn[label] = turn.get(label, 0) + 1
        ranked.append((turn[label], label, sample))
    return [sample for _, _, sample in sorted(sorted(ranked)[:rows], key=lambda one: one[1:])]


def draw(strips: list[tuple[str, np.ndarray]]) -> Image:
    """(caption, uint8 [t,H,W,3]) rows -> one picture."""
    from PIL import Image, ImageDraw

    t, H, W, _ = strips[0][1].shape
    picture = Image.new("RGB", (t * (W + 2), len(strips) * (H + CAPTION + 2)), "white")
    pen = ImageDraw.Draw(picture)
    for row, (caption, frames) in enumerate(strips):
        top = row * (H + CAPTION + 2)
        pen.text((2, top + 1), caption, fill="black")
        for at, frame in enumerate(frames):
            picture.paste(Image.fromarray(frame), (at * (W + 2), top + CAPTION))
    return picture


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _caption(clips: Manifest, sample: int) -> str:
    row = clips.index[sample]
    padded = f", {row['padded']} padded" if row["padded"] else ""
    return (
        f"{clips.classes[row['label']]}  {row['key'].decode()}  ({row['decoded']} frames{padded})"
    )


def save(picture: Image, out: Path) -> None:
    """Write the picture as its suffix says. Raises PreviewError."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(out)
    except (OSError, ValueError) as error:
        raise PreviewError(
            f"{out} cannot be written as a picture ({error}): try a .png."
        ) from error
