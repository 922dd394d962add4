"""Checkpoints: one dict of tensors and plain values, written whole or not at all.

Read with `weights_only=True` only: nothing in a checkpoint can run code. Everything that a later
evaluation or prediction needs is inside: model name and options, config, class names, split and
its digest, preprocessing. Checkpoints of earlier versions are upgraded when they are read.
"""

import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ... import models
from ...atomic import replacing
from ...errors import HarError
from ..values import upgrade_settings

SCHEMA = 2


class CheckpointError(HarError):
    """A checkpoint that is missing, damaged or of something else; one sentence."""


def save(state: dict[str, Any], path: Path) -> None:
    """Write `path`; a full disk or a kill leaves the previous file as it was.

    Raises CheckpointError.
    """
    try:
        with replacing(path) as temporary:
            torch.save({"schema": SCHEMA, **state}, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        if not path.parent.is_dir():
            raise CheckpointError(
                f"{path} could not be written, as {path.parent} was moved or removed meanwhile: "
                "where it is now, '--resume' goes on from its last checkpoint."
            ) from error
        raise CheckpointError(
            f"{path} could not be written ({error}): free some space; "
            "the checkpoint before it is untouched."
        ) from error


def save_last(state: dict[str, Any], folder: Path) -> None:
    """Write `last.pt`; the one before stays as `previous.pt`, should `last.pt` be damaged later."""
    last, previous, link = (folder / name for name in ("last.pt", "previous.pt", ".previous.tmp"))
    if last.exists():
        try:
            link.unlink(missing_ok=True)
            try:
                os.link(last, link)  # not a rename: there is a last.pt at every moment
            except OSError:  # the disk knows no hard links
                shutil.copyfile(last, link)
            os.replace(link, previous)
        except OSError as error:
            raise CheckpointError(
                f"{previous} could not be written ({error}): free some space; last.pt is untouched."
            ) from error
    save(state, last)


def load_last(path: Path) -> dict[str, Any]:
    """The state to resume from: of a run folder's last.pt, or of the .pt file `path` itself."""
    if path.is_dir() and not any(path.glob("*.pt")):
        raise CheckpointError(
            f"{path} holds no checkpoint, so there is nothing to go on from: remove it and start "
            "the run again."
        )
    if path.is_dir() or not path.suffix:
        path = path / "last.pt"
    try:
        state = load(path)
    except CheckpointError as error:
        previous = path.with_name("previous.pt")
        if not previous.is_file() or previous == path:
            raise
        raise CheckpointError(f"{error} The one before it is there: --resume {previous}") from error
    if "progress" not in state:
        raise CheckpointError(f"{path} cannot be gone on from: give the last.pt of a run.")
    return state


def find_checkpoint(run: Path | str) -> Path:
    """The file that a command takes for `run`: a checkpoint itself, of a run folder its best.pt."""
    path = Path(run)
    return path if path.suffix == ".pt" and not path.is_dir() else path / "best.pt"


def load(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises CheckpointError for anything but one of ours."""
    path = Path(path)
    if (path.parent / "folds.json").is_file():
        raise CheckpointError(
            f"{path.parent} holds the runs of several folds: give one of them, e.g. "
            f"{path.parent / 'fold-1'}."
        )
    if not path.is_file():
        if path.name == "best.pt" and (path.parent / "config.toml").is_file():
            raise CheckpointError(
                f"there is no checkpoint at {path}, as no epoch of that run has ended well: let it "
                "train, or train anew."
            )
        raise CheckpointError(
            f"there is no checkpoint at {path}: give a run folder of har-train, or a .pt file in "
            "one."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unknown pickles; they are refused just below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError, KeyError) as error:
        reason = str(error).split(". ", 1)[0][:120]
        if path.stat().st_size == 0:
            reason = "it is empty"
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint ({reason}): take another .pt file of the run."
        ) from error
    if not isinstance(state, dict) or "model_name" not in state:
        raise CheckpointError(f"{path} is not a checkpoint of har-train.")
    if state.get("schema") not in (1, SCHEMA):
        raise CheckpointError(
            f"{path} has checkpoint schema {state.get('schema')!r} and this version reads 1 and "
            f"{SCHEMA}: use the version of har-train that wrote it."
        )
    return upgrade(state)


_RENAMED = {  # since schema 1
    "scheduler": "lr_scheduler",
    "early_stop": "early_stopping",
    "position": "progress",
    "sums": "train_metrics",
    "average": "ema",
    "trained": "train_model",
}


def upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of any schema -> the same in today's: names of entries, settings and weights."""
    if state["schema"] == SCHEMA:
        return state
    state = {_RENAMED.get(name, name): value for name, value in state.items()}
    state["schema"] = SCHEMA
    _rename(state.get("early_stopping", {}), waited="num_bad_epochs")
    _rename(state.get("progress", {}), waited="data_time", transferred="transfer_time")
    _rename(state.get("preprocessing", {}), size="crop_size", resize="resize_size")
    state["config"] = upgrade_settings(state["config"])
    _upgrade_model_options(state)
    weights = [(state, "model"), (state, "train_model"), (state.get("ema", {}), "model")]
    for owner, name in weights:
        if name in owner:
            owner[name] = models.upgrade_state_dict(state["model_name"], owner[name])
    return state


def _rename(values: dict[str, Any], **names: str) -> None:
    for old, new in names.items():
        if old in values:
            values[new] = values.pop(old)


def _upgrade_model_options(state: dict[str, Any]) -> None:
    """convlstm's `memory`, lean or fast, became `recompute`."""
    options = state["model_options"]
    if "memory" in options:
        options["recompute"] = options.pop("memory") == "lean"
    text = state["config"]["model_options"]
    text = text.replace("memory=lean", "recompute=true").replace("memory=fast", "recompute=false")
    state["config"]["model_options"] = text


def command_of(state: dict[str, Any]) -> str:
    """The command that wrote a checkpoint."""
    return "har-pretrain" if "pretrained_on" in state else "har-train"


def restore_model(state: dict[str, Any]) -> nn.Module:
    """A loaded checkpoint -> its model with its weights, in eval mode, on the CPU."""
    if command_of(state) != "har-train":
        raise CheckpointError(
            "this is a run of har-pretrain, which has no classifier: train one from it with "
            f"'har-train --model {state['model_name']} --weights' and its folder."
        )
    options = dict(state["model_options"])
    name = state["model_name"]
    if not models.is_custom(name) and "weights" in models.options_of(name):
        options["weights"] = "none"  # the checkpoint's own weights follow
    model = models.build(name, len(state["classes"]), **options)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the checkpoint does not hold the weights of {name} ({detail})."
        ) from error
    return model.eval()
