"""The probabilities of every clip of an evaluation, in a file that numpy alone reads.

`probabilities.npz` lies beside eval.json. It holds no pickle, and these arrays, of N clips over K
classes: `key` str [N], of the clip; `video` str [N], the key by which eval.json calls its video;
`label` int64 [N]; `probabilities` float32 [N,K], rows sum to 1, of several views of a clip their
mean; `classes` str [K]. Compressed it takes about 4 K bytes a clip.
"""

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...atomic import write_atomically
from ...errors import HarError
from . import metrics

NAME = "probabilities.npz"


class ProbabilitiesError(HarError):
    """Probabilities that are missing, damaged, or cannot be averaged; one sentence."""


@dataclass(frozen=True, eq=False)
class Probabilities:
    """The arrays of a file, which see above."""

    key: NDArray[np.str_]
    video: NDArray[np.str_]
    label: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    classes: NDArray[np.str_]

    def average_clips(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
        """-> of each of V videos, in the order of their names: name, label int64 [V], and the mean
        of its clips' probabilities float64 [V,K]."""
        names, video_of_clip = np.unique(self.video, return_inverse=True)
        means, labels, _ = metrics.average_views(self.probabilities, self.label, video_of_clip)
        return names.tolist(), labels.astype(np.int64), means


def save_probabilities(path: Path, probabilities: Probabilities) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(probabilities))
    write_atomically(path, buffer.getvalue())


def load_probabilities(path: Path) -> Probabilities:
    """Raises ProbabilitiesError, which says what to run, where `path` is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Probabilities(**arrays)
    except FileNotFoundError as error:
        raise ProbabilitiesError(
            f"{path} is missing, the evaluation is of an earlier version: run har-eval again."
        ) from error
    except (OSError, ValueError, TypeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ProbabilitiesError(f"{path} cannot be read ({error}): run har-eval again.") from error


def join_probabilities(parts: Sequence[Probabilities]) -> Probabilities:
    """Those of different clips, of several folds, as one."""
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("key", "video", "label", "probabilities")
    }
    return Probabilities(**columns, classes=parts[0].classes)
