"""`har-eval`: a checkpoint of a run on one subset of a split -> eval.json, probabilities, CSV and
pictures, in a folder of their own (`files`).

Notes:
- Never under autocast, whatever the run trained in: figures then do not depend on whether a
  machine has bf16 units, and a prediction from the video file equals the one from the shard.
- A shard set that the run was not trained for (other classes, frame size, frame rule) is refused,
  and so is another split, unless asked for: the model may have been trained on those test clips.
- Views of a video are its stored clips. Where more are asked for, each clip gives several, if it
  holds more frames than the model takes (`har.shards.transforms.temporal_sampling`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...errors import HarError
from ...progress import track
from ...shards import splits
from ...shards.format import Manifest, load_manifest
from ...shards.loading import BatchSampler
from ...shards.transforms.clip_transform import ClipTransform
from ...shards.transforms.temporal_sampling import describe_views, split_views
from ..input import DeviceBatch, DeviceLoader
from ..runtime import checkpoint, run_dir
from ..runtime.device import select_device
from ..step import forward
from .files import evaluation_folder, write_evaluation
from .summary import Predictions, apply_threshold, list_probabilities, summarize


class EvaluationError(HarError):
    """A run, shard set and split that do not belong together; one sentence with the way out."""


def evaluate_run(
    run: Path,
    *,
    shards: Path | str | None = None,
    split: str | None = None,
    subset: str = "test",
    views: int = 1,
    threshold: float | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    allow_other_split: bool = False,
) -> dict[str, Any]:
    """Evaluate a run's best.pt, or the checkpoint `run` itself; writes eval.json and returns its
    content.

    shards, split, batch_size: None for the run's own; shards may be a URL. subset: "test", "val" or
    "train". views: average the softmax of up to this many clips of a video (1 as in the paper);
    more than are stored are cut out of the stored clips' frames, as many of each. threshold: least
    probability of an answer, else it is "unknown" (`apply_threshold`). Beside eval.json go
    probabilities.npz, per_class.csv, confusion.png and examples.png, into the folder
    eval/SPLIT-SUBSET-VIEWS of the run.

    Raises EvaluationError, CheckpointError, RunError, ShardSetError or SplitError, each one
    sentence.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise EvaluationError(f"--threshold {threshold} does not work: give a share from 0 to 1.")
    path = checkpoint.find_checkpoint(run)
    state = checkpoint.load(path)
    manifest = load_manifest(shards or run_dir.find_shards_of(state, path.parent))
    _check_shards_fit(state, manifest)
    chosen = _choose_split(state, manifest, split, allow_other_split)
    transform = ClipTransform.from_dict(state["preprocessing"])
    indices, views_per_clip = _choose_clips(manifest, chosen, subset, views, transform)
    batch_size = min(batch_size or state["config"]["batch_size"], len(indices) * views_per_clip)
    sampler = BatchSampler(np.sort(indices), batch_size, views=views_per_clip)
    loader = DeviceLoader(manifest, sampler, transform, select_device(device or "auto"))
    model = checkpoint.restore_model(state).to(loader.device)
    try:
        batches = track(loader.epoch(), loader.num_batches, "evaluate")
        predictions = predict_batches(model, batches, views=views_per_clip)
    finally:
        loader.close()
    result = {
        "run": str(path.parent),
        "model": state["model_name"],
        "checkpoint": path.name,
        "epoch": state["epoch"],
        "on": subset,
        "split": {**chosen.describe(), "leak": _leak(state, manifest, indices)},
        "views": views,
        "multiply_adds": count_multiply_adds(model, transform, loader.device),
    }
    return _complete_result(result, state, manifest, predictions, threshold)


def _complete_result(
    result: dict[str, Any],
    state: dict[str, Any],
    manifest: Manifest,
    predictions: Predictions,
    threshold: float | None,
) -> dict[str, Any]:
    """What was evaluated, with the figures of its predictions; written into its folder."""
    probabilities = list_probabilities(
        predictions,
        videos=manifest.index["video"][predictions.indices],
        keys=manifest.keys(predictions.indices),
        classes=state["classes"],
    )
    loss = float(predictions.losses.mean(dtype=np.float64))
    result |= {"manifest_digest": manifest.digest, **summarize(probabilities, loss)}
    changes = manifest.describe_changes_since(state.get("manifest_digest", manifest.digest))
    if changes:
        result["set_changes"] = changes
    if threshold is not None:
        result["threshold"] = apply_threshold(result["predictions"], threshold)
    result["folder"] = evaluation_folder(result, state)
    write_evaluation(result, probabilities, manifest)
    return result


def predict_batches(
    model: nn.Module, batches: Iterable[DeviceBatch], views: int = 1
) -> Predictions:
    """Predict all valid clips of `batches`, each exactly once.

    The model is put into eval mode. views: how often each clip comes (`BatchSampler.views`);
    probabilities and losses are means over them. Nothing is fetched from the device before the
    last batch. Raises EvaluationError when a clip comes more or less often.
    """
    model.eval()
    parts: list[tuple[torch.Tensor, ...]] = []
    with torch.inference_mode():
        for batch in batches:
            logits = forward(model, batch.clips, torch.float32)  # [b,K]
            losses = F.cross_entropy(logits, batch.labels, reduction="none")  # [b]
            parts.append((batch.indices, logits.softmax(1), batch.labels, losses, batch.valid))
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    valid = columns.pop()
    return _average_views_of_clips(Predictions(*(column[valid] for column in columns)), views)


def _average_views_of_clips(predictions: Predictions, views: int) -> Predictions:
    """Rows that are views of one clip, one after the other -> one row a clip."""
    indices = predictions.indices[::views]  # [N]
    in_order = np.array_equal(indices.repeat(views), predictions.indices)
    if not in_order or len(np.unique(indices)) < len(indices):
        raise EvaluationError(
            "a clip was evaluated twice, or its views came apart: the order of the loader is wrong."
        )
    probabilities = predictions.probabilities.reshape(len(indices), views, -1).mean(1)  # [N,K]
    losses = predictions.losses.reshape(len(indices), views).mean(1)
    return Predictions(indices, probabilities, predictions.labels[::views], losses)


def count_multiply_adds(model: nn.Module, transform: ClipTransform, device: torch.device) -> int:
    """Multiply-adds of the model's convolutions and products for one clip, by counting them."""
    shape = (1, len(transform.mean), transform.frames, *transform.crop_size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(shape, device=device))
    return int(counter.get_total_flops()) // 2


def _check_shards_fit(state: dict[str, Any], manifest: Manifest) -> None:
    """Refuse shards whose clips are not what the checkpoint was trained on."""
    trained = state["preprocessing"]
    (num_frames, *size), trained_size = manifest.clip_shape[:3], trained["clip_shape"][1:3]
    rule, trained_rule = (_describe_rule(s) for s in (manifest.sampling, trained["sampling"]))
    fit, trained_fit = (rules.get("fit", "squeeze") for rules in (manifest.resize, trained))
    if list(state["classes"]) != list(manifest.classes):
        found, needed = _describe_classes(manifest.classes), _describe_classes(state["classes"])
    elif num_frames < trained["frames"]:
        found, needed = f"clips of {num_frames} frames", str(trained["frames"])
    elif "frame_stride" in trained and num_frames != trained["clip_shape"][0]:
        found = f"clips of {num_frames} frames"
        needed = f"{trained['clip_shape'][0]}, out of which it takes windows"
    elif size != list(trained_size):
        found, needed = ("frames of {}x{}".format(*s) for s in (size, trained_size))
    elif rule != trained_rule:
        found, needed = f"frames chosen by the rule {rule}", trained_rule
    elif fit != trained_fit:
        found, needed = f"frames of the rule '--fit {fit}'", f"'--fit {trained_fit}'"
    else:
        return
    raise EvaluationError(
        f"{manifest.root} has {found} and the run was trained on {needed}"
        f"{_describe_changes(state, manifest)}: give the shards of the run with --shards."
    )


def _describe_changes(state: dict[str, Any], manifest: Manifest) -> str:
    """What became of the run's set, where this is it."""
    edit = manifest.changes_since(state.get("manifest_digest", manifest.digest))
    return f" (since the run began: {edit})" if edit else ""


def _describe_rule(sampling: dict[str, Any]) -> str:
    """A sampling rule as text; how many frames and views were kept does not change the rule."""
    texts = {"stride": " of stride {}", "fps": " at {:g} fps", "stream": " from video stream {}"}
    parts = (text.format(sampling[name]) for name, text in texts.items() if name in sampling)
    return f"{sampling.get('rule')!r}{''.join(parts)}"


def _describe_classes(classes: Iterable[str]) -> str:
    names = list(classes)
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _choose_split(
    state: dict[str, Any], manifest: Manifest, name: str | None, allow_other: bool
) -> splits.Split:
    """The split `name` of the manifest; another than the run's only if allowed."""
    trained = state["split"]
    if name is None or name == trained["name"]:
        split = _remake_split(state, manifest)
    else:
        split = splits.make_split(manifest, name, state["config"]["split_seed"])
    if split.digest == trained["digest"] or allow_other:
        return split
    if split.name == trained["name"] and manifest.digest == state.get("manifest_digest"):
        raise EvaluationError(
            f"the run was trained with an earlier version of har, which cut split {split.name} of "
            f"{manifest.root} otherwise ({trained['digest']}, now {split.digest}): where groups "
            "span classes, it balances the classes now, so test clips may have been trained on; "
            "train a new run, or add --allow-other-split."
        )
    changes, remedy = _describe_changes(state, manifest), "leave out --split"
    if name is None:
        remedy = "give the shards of the run with --shards"
    if changes:
        remedy = "give the set as it was with --shards, train a new run"
    raise EvaluationError(
        f"split {split.name} ({split.digest}) of {manifest.root} is not the split the run was "
        f"trained on, {trained['name']} ({trained['digest']}){changes}, so test clips may have "
        f"been trained on: {remedy}, or add --allow-other-split."
    )


def _remake_split(state: dict[str, Any], manifest: Manifest) -> splits.Split:
    """The split that the run's settings give of the manifest. Raises SplitError."""
    config = state["config"]
    share = config.get("val_from_train", 0.0)
    return splits.make_split(manifest, config["split"], config["split_seed"], share)


def _leak(state: dict[str, Any], manifest: Manifest, indices: np.ndarray) -> float | None:
    """Share of the clips `indices` with a clip of the same group in what the run trained on.

    None where that is unknown: no groups, or a set that does not hold the run's own split.
    """
    trained = state["split"]
    try:
        split = _remake_split(state, manifest)
    except splits.SplitError:
        return None
    if split.digest != trained["digest"]:
        return None
    return splits.compute_leak(manifest, split.train, indices)


def _choose_clips(
    manifest: Manifest, split: splits.Split, subset: str, views: int, transform: ClipTransform
) -> tuple[np.ndarray, int]:
    """-> sample indices of the subset, and how many views each clip gives (`split_views`)."""
    indices = split.subset(subset)
    if len(indices) == 0:
        others = [name for name in ("test", "val", "train") if len(split.subset(name))]
        raise EvaluationError(
            f"split {split.name} has no {subset} clip of {manifest.root}: give --subset "
            f"{others[0]}."
        )
    clip_numbers = manifest.index["view"][indices]
    num_stored = int(clip_numbers.max()) + 1
    stored, frames, stride = manifest.clip_shape[0], transform.frames, transform.frame_stride
    parts = split_views(views, num_stored, stored, frames, stride)
    if parts is None:
        windows = "" if stride is None else f" of stride {stride}"
        raise EvaluationError(
            f"--views {views} does not work: {manifest.root} holds up to {num_stored} clips of a "
            f"video, of {stored} frames where the model takes {frames}{windows}: give "
            f"{describe_views(num_stored, stored, frames, stride)}, or build shards with more "
            "clips or frames."
        )
    return indices[clip_numbers < parts[0]], parts[1]
