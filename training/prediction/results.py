"""The answers to videos: `VideoPrediction` for one, `Prediction` for a list of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import printable
from ..inference.windows import Segment


@dataclass(frozen=True, repr=False, eq=False)
class VideoPrediction:
    """The answer to one video, or why there is none.

    path: its file, or its URL as a str. classes: the K names. probabilities: float32 [K], with
    windows their mean; [0] where there is an error. windows: each with start and end in seconds and
    its probabilities. timeline: the stretches of one label that the windows give. warnings: what is
    odd about the file. error: why it was not predicted, "" where it was.
    """

    path: Path | str
    classes: Sequence[str]
    probabilities: NDArray[np.float32]
    windows: Sequence[Segment] = ()
    timeline: Sequence[Segment] = ()
    warnings: Sequence[str] = ()
    error: str = ""

    @property
    def label(self) -> str | None:
        """The most probable class; None where there is an error."""
        return None if self.error else self.classes[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """Of `label`; nan where there is an error."""
        return float("nan") if self.error else float(self.probabilities.max())

    @property
    def times(self) -> list[tuple[float, float]]:
        """Start and end of each window in seconds; [] where the whole video was one answer."""
        return [(window.start, window.end) for window in self.windows]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` most probable (class, probability), the first the most probable."""
        return self._top(self.probabilities, k)

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """As `har-predict --json` prints it, with `k` classes."""

        def rows(probabilities: NDArray[np.float32], k: int = k) -> list[dict[str, Any]]:
            pairs = self._top(probabilities, k)
            return [{"class": name, "probability": value} for name, value in pairs]

        entry: dict[str, Any] = {"video": printable(str(self.path))}
        if self.error:
            return {**entry, "error": self.error}
        entry["top"] = rows(self.probabilities)
        if self.windows:
            entry["windows"] = [
                {"start": w.start, "end": w.end, "top": rows(w.probabilities)} for w in self.windows
            ]
            entry["timeline"] = [
                {"start": s.start, "end": s.end, **rows(s.probabilities, 1)[0]}
                for s in self.timeline
            ]
        if self.warnings:
            entry["warnings"] = list(self.warnings)
        return entry

    def _top(self, probabilities: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        order = np.argsort(-probabilities, kind="stable")[:k].tolist()
        return [(self.classes[label], float(probabilities[label])) for label in order]
