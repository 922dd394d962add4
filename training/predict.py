"""`har-predict`: video files -> the most probable classes, by a run's best checkpoint.

Odd: nothing here is configured. Frame rule, stored size, crop and normalisation all come from the
checkpoint, and the pixels take the same way as an evaluated clip's (decode as the shards were
built, then `shards.augment`), in float32; so a video file gives the probabilities that its clip
in the shards gives. A video that cannot be read is reported and the others go on.
"""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shards import augment
from training import checkpoint, device
from training.feed import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import nn

SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv")


class PredictionError(ValueError):
    """Nothing to predict, or a number of classes that makes no sense; one sentence."""


@dataclass(frozen=True)
class Prediction:
    """One video's answer. top: (class, probability) pairs, the most probable first, sums to at
    most 1; empty when `error` says in one sentence why there is no answer."""

    video: str
    top: list[tuple[str, float]]
    error: str | None = None


def run(
    run: Path,
    videos: Sequence[str | Path],
    *,
    top: int = 5,
    device: str | None = None,
    as_json: bool = False,
) -> int:
    """Predict `videos` (files, folders, globs) and print a table or JSON; -> the exit code.

    0, or 1 when any video failed. Raises PredictionError or CheckpointError, one sentence.
    """
    answers = []
    for answer in predict(run, videos, top=top, device_name=device):
        answers.append(answer)
        if not as_json:
            _print(answer)
    if as_json:
        print(json.dumps([_plain(answer) for answer in answers], indent=1))
    return 1 if any(answer.error for answer in answers) else 0


def predict(
    run: Path, videos: Sequence[str | Path], *, top: int = 5, device_name: str | None = None
) -> Iterator[Prediction]:
    """One Prediction a video, in the order given; folders and globs in name order."""
    if top < 1:
        raise PredictionError(f"--top {top} does not work: give 1 or more.")
    state = checkpoint.load(Path(run) / "best.pt")
    on = device.choose(device_name or "auto")
    model = checkpoint.restore_model(state).to(on)
    for path in find(videos):
        try:
            probabilities = _probabilities(model, on, state, path)
        except ValueError as error:
            if not _is_video_fault(error):
                raise
            yield Prediction(str(path), [], str(error))
            continue
        order = np.argsort(-probabilities, kind="stable")[:top].tolist()
        pairs = [(state["classes"][k], float(probabilities[k])) for k in order]
        yield Prediction(str(path), pairs)


def find(given: Sequence[str | Path]) -> list[Path]:
    """Files, folders (searched to the bottom) and globs -> video files, each once.

    A path that does not exist stays in the list, so that it is reported as a video that cannot be
    read. Raises PredictionError when a folder or a glob holds no video.
    """
    found: dict[Path, None] = {}
    for item in given:
        path = Path(item)
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES]
        elif glob.has_magic(str(item)) and not path.exists():
            inside = [Path(name) for name in sorted(glob.glob(str(item), recursive=True))]
        else:
            inside = [path]
        if not inside:
            raise PredictionError(
                f"there is no video in {item}: give video files, or a folder with "
                f"{', '.join(SUFFIXES[:4])} or the like."
            )
        found.update(dict.fromkeys(inside))
    return list(found)


def read_clips(path: Path, preprocessing: dict[str, Any]) -> NDArray[np.uint8]:
    """A video -> the clips that its shard would hold, uint8 [V,T,H,W,C], as the model takes them.

    preprocessing: of the checkpoint. V is 1 but for the rule "dense", whose windows all count, as
    in `har-eval --views V`. Raises pipeline.decode.VideoError.
    """
    from pipeline import decode
    from pipeline.sampling import Sampling

    stored, height, width = preprocessing["clip_shape"][:3]
    made = preprocessing["sampling"]
    sampling = Sampling(
        made["rule"], frames=stored, stride=made.get("stride", 1), clips=made.get("clips", 1)
    )
    clips = np.stack([clip.pixels for clip in decode.clips(path, sampling, (height, width))])
    # the loader's choice among stored frames, at phase 0 (`Loader._frame_numbers`)
    frames = preprocessing["frames"]
    return clips[:, (np.arange(frames) * stored / frames).astype(np.int64)]


def to_input(pixels: NDArray[np.uint8], wanted: Preprocessing, on: torch.device) -> torch.Tensor:
    """uint8 [V,T,H,W,C] -> float32 [V,C,T,h,w] on the device: resize, centre crop, normalise."""
    import torch

    source = (pixels.shape[2], pixels.shape[3])
    maps = augment.eval_maps(len(pixels), source=source, resize=wanted.resize, size=wanted.size)
    batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(on)  # [V,T,H,W,C]
    return augment.apply(
        batch, torch.from_numpy(maps), size=wanted.size, mean=wanted.mean, std=wanted.std
    )


def _probabilities(
    model: nn.Module, on: torch.device, state: dict[str, Any], path: Path
) -> NDArray[np.float32]:
    """-> softmax of one video, averaged over its clips, float32 [K]."""
    import torch

    wanted = Preprocessing.from_dict(state["preprocessing"])
    clips = to_input(read_clips(path, state["preprocessing"]), wanted, on)
    with torch.inference_mode():
        result: NDArray[np.float32] = model(clips).float().softmax(1).mean(0).cpu().numpy()
    return result


def _is_video_fault(error: ValueError) -> bool:
    from pipeline import decode

    return isinstance(error, decode.VideoError)


def _print(answer: Prediction) -> None:
    if answer.error:
        print(answer.error, file=sys.stderr)  # names the file
        return
    print(answer.video)
    width = max(len(name) for name, _ in answer.top)
    for name, probability in answer.top:
        print(f"  {name:<{width}}  {probability:.4f}")


def _plain(answer: Prediction) -> dict[str, Any]:
    """For JSON: an error instead of an empty list."""
    values = asdict(answer)
    if answer.error:
        return {"video": answer.video, "error": answer.error}
    values["top"] = [{"class": name, "probability": p} for name, p in answer.top]
    del values["error"]
    return values
