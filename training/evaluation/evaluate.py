"""`har-eval`: a run's best checkpoint on one side of a split -> eval.json, CSV and pictures.

Odd:
- Never under autocast, whatever the run trained in: figures then do not depend on whether a
  machine has bf16 units, and a prediction from the video file equals the one from the shard.
- A shard set that the run was not trained for (other classes, frame size, frame rule) is refused,
  and so is another split, unless asked for: the model may have been trained on those test clips.
- Views of a video are its stored clips; asked for more, and each clip gives several, of evenly
  spaced phases, where it holds more frames than the model takes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...atomic import write_atomically
from ...errors import HarError
from ...shards import splits
from ...shards.format import ClipReader, Manifest, load_manifest
from ...shards.loading import BatchSampler, max_views
from ...shards.transforms.clip_transform import ClipTransform
from ..input.device_loader import DeviceBatch, DeviceLoader
from ..plots import DISPLAY_NAMES, choose_examples, plot_confusion, plot_examples
from ..runtime import checkpoint, device, progress
from ..step import forward
from . import scores
from .scores import Predictions

if TYPE_CHECKING:
    import torch
    from torch import nn

SIDES = ("test", "val", "train")


class EvaluationError(HarError):
    """A run, shard set and split that do not belong together; one sentence with the way out."""


def run(
    run: Path,
    *,
    shards: Path | str | None = None,
    split: str | None = None,
    on: str = "test",
    views: int = 1,
    device: str | None = None,
    batch_size: int | None = None,
    allow_other_split: bool = False,
) -> dict[str, Any]:
    """Evaluate `run`/best.pt; writes eval.json (eval-val.json, ...) and -> what it holds.

    shards, split, batch_size: None for the run's own; shards may be a URL. on: "test", "val" or
    "train". views: average the softmax of up to this many clips of a video (1 as in the paper);
    more than are stored are cut out of the stored clips' frames, as many of each. Beside eval.json
    go per_class.csv, confusion.png and examples.png.

    Raises EvaluationError, CheckpointError, ShardSetError or SplitError, each one sentence.
    """
    state = checkpoint.load(Path(run) / "best.pt")
    clips = load_manifest(shards or state["config"]["shards"])
    _check_fits(state, clips)
    chosen = _choose_split(state, clips, split, allow_other_split)
    ids, each = _choose_clips(clips, chosen, on, views, int(state["preprocessing"]["frames"]))
    model = checkpoint.restore_model(state)
    feed = _open_batches(state, clips, ids, each, device, batch_size)
    try:
        predictions, macs = _predict(model, feed, each)
    finally:
        feed.close()
    result = {
        "run": str(run),
        "model": state["model_name"],
        "checkpoint": "best.pt",
        "epoch": state["epoch"],
        "on": on,
        "split": {**chosen.describe(), "leak": _leak(state, clips, ids)},
        "views": views,
        "multiply_adds": macs,
        **scores.summarise(
            predictions,
            videos=clips.index["video"][predictions.ids],
            keys=clips.keys(predictions.ids),
            classes=state["classes"],
        ),
    }
    _write(Path(run), result, clips)
    return result


def describe(result: dict[str, Any]) -> str:
    """What `run` returned, as lines for the terminal."""
    return f"{scores.describe(result)}\nnext: har-report {result['run']}"


def collect(
    model: nn.Module,
    batches: Iterable[DeviceBatch],
    precision: torch.dtype | None = None,
    views: int = 1,
) -> Predictions:
    """Predict all valid clips of `batches` (see `har.training.input.device_loader.DeviceBatch`), each exactly once.

    The model is put into eval mode. precision: None for float32. views: how often each clip comes
    (`BatchSampler.views`); probabilities and losses are means over them. Nothing is fetched from the device
    before the last batch. Raises EvaluationError when a clip comes more or less often.
    """
    import torch
    import torch.nn.functional as F

    model.eval()
    parts: list[tuple[torch.Tensor, ...]] = []
    with torch.inference_mode():
        for batch in batches:
            logits = forward(model, batch.clips, precision or torch.float32)  # [b,K]
            losses = F.cross_entropy(logits, batch.labels, reduction="none")  # [b]
            parts.append((batch.indices, logits.softmax(1), batch.labels, losses, batch.valid))
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    valid = columns.pop()
    return _mean(Predictions(*(column[valid] for column in columns)), views)


def _mean(found: Predictions, views: int) -> Predictions:
    """Rows that are views of one clip, one after the other -> one row a clip."""
    if len(found.ids) % views or len(np.unique(found.ids)) * views != len(found.ids):
        raise EvaluationError("a clip was evaluated twice: the loader's plan is wrong.")
    ids = found.ids.reshape(-1, views)
    if (ids != ids[:, :1]).any():
        raise EvaluationError("the views of a clip came apart: the loader's plan is wrong.")
    probabilities = found.probabilities.reshape(len(ids), views, -1).mean(1)  # [N,K]
    losses = found.losses.reshape(-1, views).mean(1)
    return Predictions(ids[:, 0], probabilities, found.labels[::views], losses)


def _predict(model: nn.Module, feed: DeviceLoader, views: int) -> tuple[Predictions, int]:
    """-> predictions, and multiply-adds of one clip."""
    model = model.to(feed.device)
    batches = progress.track(feed.epoch(), total=feed.num_batches, description="evaluate")
    predictions = collect(model, batches, views=views)
    return predictions, multiply_adds(model, feed.transform, feed.device)


def multiply_adds(model: nn.Module, shape: ClipTransform, on: torch.device) -> int:
    """Multiply-adds of the model's convolutions and products for one clip, by counting them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    clip = torch.zeros(1, len(shape.mean), shape.frames, *shape.crop_size, device=on)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(clip)
    return int(counter.get_total_flops()) // 2


def _open_batches(
    state: dict[str, Any],
    clips: Manifest,
    ids: np.ndarray,
    views: int,
    name: str | None,
    batch_size: int | None,
) -> DeviceLoader:
    """The clips `ids` in order, preprocessed as the checkpoint says, without augmentation."""
    if batch_size is not None and batch_size < 1:
        raise EvaluationError(f"--batch-size {batch_size} does not work: give 1 or more.")
    rows = min(batch_size or state["config"]["batch_size"], len(ids) * views)
    plan = BatchSampler(np.sort(ids), rows, views=views)
    wanted = ClipTransform.from_dict(state["preprocessing"])
    return DeviceLoader(clips, plan, wanted, device.select_device(name or "auto"))


def _check_fits(state: dict[str, Any], clips: Manifest) -> None:
    """Refuse shards whose clips are not what the checkpoint was trained on."""
    made, ours = state["preprocessing"], list(clips.clip_shape)
    theirs, back = list(made["clip_shape"]), "give the shards of the run with --shards."
    if list(state["classes"]) != list(clips.classes):
        raise EvaluationError(
            f"{clips.root} has {len(clips.classes)} classes ({_some(clips.classes)}) and the run "
            f"was trained on {len(state['classes'])} ({_some(state['classes'])}): {back}"
        )
    if ours[0] < made["frames"]:
        raise EvaluationError(
            f"the clips in {clips.root} hold {ours[0]} frames and the run needs {made['frames']}: "
            f"{back}"
        )
    if ours[1:] != theirs[1:]:
        raise EvaluationError(
            f"the frames in {clips.root} are {ours[1]}x{ours[2]} and the run was trained on "
            f"{theirs[1]}x{theirs[2]}: {back}"
        )
    rules = [_rule(sampling) for sampling in (clips.sampling, made["sampling"])]
    if rules[0] != rules[1]:
        raise EvaluationError(
            f"the frames in {clips.root} were chosen by the rule {rules[0]} and the run was "
            f"trained on {rules[1]}: {back}"
        )


def _rule(sampling: dict[str, Any]) -> str:
    """A sampling rule as text; how many frames and views were kept does not change the rule."""
    stride = f" of stride {sampling['stride']}" if "stride" in sampling else ""
    return f"{sampling.get('rule')!r}{stride}"


def _some(names: Iterable[str]) -> str:
    """The first names of a list, for a message."""
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _choose_split(
    state: dict[str, Any], clips: Manifest, name: str | None, allow_other: bool
) -> splits.Split:
    """The asked split of `clips`; another than the run's only if allowed."""
    trained = state["split"]
    chosen = splits.make_split(clips, name or trained["name"], state["config"]["split_seed"])
    if chosen.digest != trained["digest"] and not allow_other:
        raise EvaluationError(
            f"split {chosen.name} ({chosen.digest}) of {clips.root} is not the split the run was "
            f"trained on, {trained['name']} ({trained['digest']}), so test clips may have been "
            "trained on: leave out --split and --shards, or add --allow-other-split."
        )
    return chosen


def _leak(state: dict[str, Any], clips: Manifest, ids: np.ndarray) -> float | None:
    """Share of the clips `ids` with a group mate in what the run really trained on.

    None where that is unknown: no groups, or a set that does not hold the run's own split.
    """
    trained = state["split"]
    try:
        own = splits.make_split(clips, trained["name"], state["config"]["split_seed"])
    except splits.SplitError:
        return None
    return splits.compute_leak(clips, own.train, ids) if own.digest == trained["digest"] else None


def _choose_clips(
    clips: Manifest, split: splits.Split, on: str, views: int, frames: int
) -> tuple[np.ndarray, int]:
    """-> sample ids of the side `on`, and how many views of `frames` frames each gives.

    The first `views` clips of each video; all of them, each several times, where more are asked for
    than are stored.
    """
    if on not in SIDES:
        raise EvaluationError(f"--on {on!r} is unknown: choose one of {', '.join(SIDES)}.")
    ids = split.subset(on)
    if len(ids) == 0:
        raise EvaluationError(
            f"split {split.name} leaves no {on} clip of {clips.root}: choose another --on."
        )
    stored = int(clips.index["view"][ids].max()) + 1
    if 1 <= views <= stored:
        return ids[clips.index["view"][ids] < views], 1
    each, most = views // stored, max_views(clips.clip_shape[0], frames)
    if views < 1 or views % stored or each > most:
        able = [*range(1, stored + 1), *(stored * n for n in range(2, most + 1))]
        raise EvaluationError(
            f"--views {views} does not work: {clips.root} holds up to {stored} clips of a video, "
            f"of {clips.clip_shape[0]} frames where the model takes {frames}: give "
            f"{' or '.join(map(str, able))}, or build shards with more clips or frames."
        )
    return ids, each


def _write(run: Path, result: dict[str, Any], clips: Manifest) -> None:
    """The CSV and the pictures, then eval.json: where that is, all is there."""
    tail = "" if result["on"] == "test" else f"-{result['on']}"
    table = io.StringIO(newline="")
    rows = csv.DictWriter(table, list(result["per_class"][0]), lineterminator="\n")
    rows.writeheader()
    rows.writerows(result["per_class"])
    write_atomically(run / f"per_class{tail}.csv", table.getvalue().encode())
    title = f"{DISPLAY_NAMES.get(result['model'], result['model'])} on {result['on']}"
    names = [row["class"] for row in result["per_class"]]
    matrix = np.array(result["confusion"])
    plot_confusion(run / f"confusion{tail}.png", matrix, names, title)
    _write_examples(run / f"examples{tail}.png", result, clips)
    write_atomically(run / f"eval{tail}.json", (json.dumps(result, indent=1) + "\n").encode())


def _write_examples(path: Path, result: dict[str, Any], clips: Manifest) -> None:
    """Strips of frames: the surest right and the surest wrong answers."""
    chosen = choose_examples(result["predictions"])
    row_of = {key: row for row, key in enumerate(clips.keys())}
    reader = ClipReader(clips)
    try:
        pixels = [reader.read(row_of[one["key"]]) for one in chosen]
    finally:
        reader.close()
    plot_examples(path, chosen, pixels)
