"""Contact sheets: look at what is in a shard set. One row a clip: its name, its frames.

With no key asked for, clips are taken evenly over classes, so that a sheet of twelve shows twelve
classes where there are as many.
"""

import fnmatch
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...atomic import replacing
from ...errors import HarError
from ...fonts import load_font
from ...shards.format import ClipReader, Manifest, load_manifest

CAPTION = 14  # pixels of height for the text above each row
GAP = 2


class PreviewError(HarError):
    """A sheet that cannot be drawn as asked; the text is one sentence."""


def contact_sheet(
    root: Path | str,
    *,
    rows: int = 12,
    frames: int = 8,
    classes: tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
) -> Image.Image:
    """-> the picture. classes / keys: show only these; `*` and `?` work. rows, frames: at most.

    Raises PreviewError where nothing fits, ShardSetError for a set that cannot be read.
    """
    manifest = load_manifest(root)
    T = manifest.clip_shape[0]
    shown = np.unique(np.linspace(0, T - 1, min(frames, T)).round().astype(int))
    with closing(ClipReader(manifest)) as reader:
        return _draw(
            [
                (_caption(manifest, index), reader.read(index)[shown])
                for index in choose_clips(manifest, rows, classes, keys)
            ]
        )


def choose_clips(
    manifest: Manifest, max_clips: int, classes: tuple[str, ...], keys: tuple[str, ...]
) -> list[int]:
    """Indices of clips that fit, evenly over classes, in the order of class and key."""
    names, labels = manifest.keys(), manifest.index["label"].tolist()
    num_of_class: Counter[int] = Counter()
    ranked = []
    for index in np.argsort(manifest.index["key"], kind="stable").tolist():
        label = labels[index]
        if _matches(manifest.classes[label], classes) and _matches(names[index], keys):
            ranked.append((num_of_class[label], label, index))
            num_of_class[label] += 1
    if not ranked:
        raise PreviewError(
            f"no clip of {manifest.root} is of class {', '.join(classes) or 'any'} and has a key "
            f"like {', '.join(keys) or 'any'}: classes are {', '.join(manifest.classes[:5])} ..., "
            f"keys are like {names[0]}."
        )
    chosen = sorted(ranked)[:max_clips]
    return [index for _, _, index in sorted(chosen, key=lambda entry: entry[1:])]


def save_picture(picture: Image.Image, out: Path) -> None:
    """Write the picture as its suffix says. Raises PreviewError, and OSError where the disk
    refuses."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            picture.save(temporary, Image.registered_extensions()[out.suffix.lower()])
    except (OSError, KeyError, ValueError) as error:  # Pillow's own OSError has no number
        if getattr(error, "errno", None):
            raise
        raise PreviewError(
            f"{out} cannot be written as a picture ({error}): try a .png."
        ) from error


def _draw(strips: list[tuple[str, np.ndarray]]) -> Image.Image:
    """(caption, uint8 [t,H,W,3]) rows -> one picture."""
    t, H, W, _ = strips[0][1].shape
    row_height = CAPTION + H + GAP
    picture = Image.new("RGB", (t * (W + GAP), len(strips) * row_height), "white")
    draw = ImageDraw.Draw(picture)
    for row, (caption, frames) in enumerate(strips):
        font = None if caption.isascii() else load_font(caption, 11)  # None: Pillow's own
        draw.text((2, row * row_height + 1), caption, fill="black", font=font)
        for column, frame in enumerate(frames):
            corner = (column * (W + GAP), row * row_height + CAPTION)
            picture.paste(Image.fromarray(frame), corner)
    return picture


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _caption(manifest: Manifest, index: int) -> str:
    row = manifest.index[index]
    padded = f", {row['padded']} padded" if row["padded"] else ""
    class_name, key = manifest.classes[row["label"]], row["key"].decode()
    return f"{class_name}  {key}  ({row['decoded']} frames{padded})"
