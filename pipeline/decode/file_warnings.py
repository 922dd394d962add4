"""What is odd about video files, in words: of one file, and of the files of a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_UNITS = {"packets": "packet", "frames": "frame", "seconds": "s", "bytes": "byte"}


def describe_warnings(warnings: Mapping[str, Any]) -> list[str]:
    """`Clip.warnings` as sentences, in which "it" is the file."""
    texts = []
    if "streams" in warnings:
        indices, taken = warnings["streams"]["in_file"], warnings["streams"]["taken"]
        texts.append(
            f"it has several video streams ({', '.join(map(str, indices))}): {taken} was taken, "
            "--stream chooses another."
        )
    if "guessed_times" in warnings:
        frames = _count(warnings["guessed_times"], "frame")
        texts.append(f"{frames} without a usable time stamp: the frame rate of the file gives it.")
    if "repaired" in warnings:
        texts.append(
            f"{_count(warnings['repaired'], 'frame')} damaged: FFmpeg repaired what it could."
        )
    if "lost" in warnings:
        texts.append(f"it lost {_amounts(warnings['lost'])}.")
    if "no_length" in warnings:
        texts.append("it does not say how long it is: whether it was cut off cannot be told.")
    return texts


def summarize_warnings(videos: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same of many: a line for each kind, with how many videos it is true of."""
    kinds: dict[str, list[Any]] = {}
    for video in videos:
        for name, value in video["warnings"].items():
            kinds.setdefault(name, []).append(value)
    lines = []
    for name, values in sorted(kinds.items()):
        if name == "streams":
            taken = Counter(value["taken"] for value in values)
            counts = ", ".join(f"stream {index} of {taken[index]}" for index in sorted(taken))
            text = f"several video streams, taken: {counts}; --stream chooses another"
        elif name == "lost":
            total: Counter[str] = Counter()
            for value in values:
                total.update(value)
            text = f"kept in part (--keep-partial), lost: {_amounts(total)}"
        elif name == "no_length":
            text = "a kind of file that does not say how long it is: a cut is not noticed"
        else:
            text = {
                "guessed_times": "{} without a usable time stamp: the frame rate gives it",
                "repaired": "{} damaged, FFmpeg repaired what it could",
            }[name].format(_count(sum(values), "frame"))
        lines.append(f"{_count(len(values), 'video')}: {text}")
    return lines


def _amounts(lost: Mapping[str, float]) -> str:
    """ "3 packets, 1.2 s, 1,000 bytes"."""
    return ", ".join(_count(lost[name], unit) for name, unit in _UNITS.items() if lost.get(name))


def _count(number: float, unit: str) -> str:
    """ "1,000 frames"."""
    plural = "s" if number != 1 and unit != "s" else ""
    return f"{round(number, 3):,} {unit}{plural}"
