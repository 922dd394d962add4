"""The answers to videos: `VideoPrediction` for one, `Prediction` for a list of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import printable
from ...notebook import Html, as_table, html_strip, html_table
from ..inference.windows import UNKNOWN, Segment

STAGES = ("open", "decode", "model")


@dataclass(frozen=True, repr=False, eq=False)
class VideoPrediction:
    """The answer to one video, or why there is none.

    path: its file, or its URL as a str. classes: the K names. probabilities: float32 [K], with
    windows their mean; [0] where there is an error. windows: each with start and end in seconds and
    its probabilities. timeline: the stretches of one label that the windows give. warnings: what is
    odd about the file. error: why it was not predicted, "" where it was. strip: some frames of the
    clip that the model saw (JPEG), where they were asked for. threshold: labels of a lower
    probability are "unknown"; None for no threshold. milliseconds: of each of STAGES, where they
    were asked for.
    """

    path: Path | str
    classes: Sequence[str]
    probabilities: NDArray[np.float32]
    windows: Sequence[Segment] = ()
    timeline: Sequence[Segment] = ()
    warnings: Sequence[str] = ()
    error: str = ""
    strip: bytes = b""
    threshold: float | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str | None:
        """The most probable class, or "unknown"; None where there is an error."""
        return None if self.error else self.label_of(self.probabilities)

    def label_of(self, probabilities: NDArray[np.float32]) -> str:
        """The most probable class of [K], or "unknown"."""
        is_known = probabilities.max() >= (self.threshold or 0.0)
        return self.classes[int(probabilities.argmax())] if is_known else UNKNOWN

    @property
    def probability(self) -> float:
        """Of the most probable class; nan where there is an error."""
        return float("nan") if self.error else float(self.probabilities.max())

    @property
    def times(self) -> list[tuple[float, float]]:
        """Start and end of each window in seconds; [] where the whole video was one answer."""
        return [(window.start, window.end) for window in self.windows]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` most probable (class, probability), the first the most probable."""
        return self._top(self.probabilities, k)

    @property
    def messages(self) -> list[str]:
        """What is to be said of the video: its warnings, and why it was not predicted."""
        texts = [f"{printable(str(self.path))}: {text}" for text in self.warnings]
        return [*texts, self.error] if self.error else texts

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """As `har-predict --json` prints it, with `k` classes."""

        def rows(probabilities: NDArray[np.float32], k: int = k) -> list[dict[str, Any]]:
            pairs = self._top(probabilities, k)
            return [{"class": name, "probability": value} for name, value in pairs]

        def label(probabilities: NDArray[np.float32]) -> dict[str, str]:
            return {} if self.threshold is None else {"label": self.label_of(probabilities)}

        entry: dict[str, Any] = {"video": printable(str(self.path))}
        if self.error:
            return {**entry, "error": self.error}
        entry |= {"top": rows(self.probabilities), **label(self.probabilities)}
        if self.windows:
            entry["windows"] = [
                {**_span(w), "top": rows(w.probabilities), **label(w.probabilities)}
                for w in self.windows
            ]
            entry["timeline"] = [
                {**_span(s), **rows(s.probabilities, 1)[0], **label(s.probabilities)}
                for s in self.timeline
            ]
        if self.milliseconds:
            entry["milliseconds"] = {name: round(ms, 3) for name, ms in self.milliseconds.items()}
        if self.warnings:
            entry["warnings"] = list(self.warnings)
        return entry

    def _top(self, probabilities: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        order = np.argsort(-probabilities, kind="stable")[:k].tolist()
        return [(self.classes[label], float(probabilities[label])) for label in order]

    def __repr__(self) -> str:
        answer = (
            f"error={self.error!r}" if self.error else f"{self.label!r}, {self.probability:.4f}"
        )
        count = f", {len(self.windows)} windows" if self.windows else ""
        return f"VideoPrediction({printable(str(self.path))!r}, {answer}{count})"

    def _repr_html_(self) -> str:
        return Prediction([self])._repr_html_()


def _span(segment: Segment) -> dict[str, float]:
    """To a millisecond."""
    return {"start": round(segment.start, 3), "end": round(segment.end, 3)}


class Prediction(list[VideoPrediction]):
    """The answers to several videos, in their order."""

    @property
    def labels(self) -> list[str | None]:
        """The most probable class of each video; None where it could not be read."""
        return [answer.label for answer in self]

    @property
    def table(self) -> Any:
        """Path, label, probability and error of each: a pandas DataFrame, or a list of dicts."""
        names = ("path", "label", "probability", "error")
        return as_table(
            [{name: getattr(a, name) for name in names} | {"path": str(a.path)} for a in self]
        )

    def __repr__(self) -> str:
        counts = Counter(answer.label for answer in self if not answer.error)
        labels = ", ".join(f"{count} {label}" for label, count in counts.most_common(3))
        failed = sum(bool(answer.error) for answer in self)
        more = (", ..." if len(counts) > 3 else "") + (f", {failed} not read" if failed else "")
        plural = "" if len(self) == 1 else "s"
        return f"Prediction({len(self)} video{plural}: {labels or 'no answer'}{more})"

    def _repr_html_(self) -> str:
        rows = [row for answer in self[:_SHOWN] for row in _html_rows(answer)]
        text = html_table(["video", "label", "probability", "seconds", "frames"], rows)
        rest = len(self) - _SHOWN
        return f"<div>{text}{f'<p>... and {rest} more</p>' if rest > 0 else ''}</div>"


_SHOWN = 20  # videos of a list in a notebook, and pieces of a timeline


def _html_rows(answer: VideoPrediction) -> list[list[object]]:
    """A row for a video, and one for each stretch of its timeline."""
    name = printable(str(answer.path))
    if answer.error:
        return [[name, answer.error, "", "", ""]]
    strip = html_strip(answer.strip, str(answer.label)) if answer.strip else Html("")
    rows: list[list[object]] = [[name, answer.label, f"{answer.probability:.4f}", "", strip]]
    for piece in answer.timeline[:_SHOWN]:
        label = answer.label_of(piece.probabilities)
        probability = float(piece.probabilities.max())
        span = f"{piece.start:.2f} to {piece.end:.2f}"
        rows.append(["", label, f"{probability:.4f}", span, ""])
    if len(answer.timeline) > _SHOWN:
        rows.append(["", f"... and {len(answer.timeline) - _SHOWN} more", "", "", ""])
    return rows
