"""Checkpoints: one dict of tensors and plain values, written whole or not at all.

Read with `weights_only=True` only: nothing in a checkpoint can run code. Everything that a later
evaluation or prediction needs is inside: model name and options, config, class names, split and
its digest, preprocessing.
"""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...atomic import sync_folder
from ...errors import HarError

if TYPE_CHECKING:
    from torch import nn

SCHEMA = 1


class CheckpointError(HarError):
    """A checkpoint that is missing, damaged or of something else; one sentence."""


def save(state: dict[str, Any], path: Path) -> None:
    """Temporary name, sync, rename: a full disk or a kill leaves the previous file as it was."""
    import torch

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"schema": SCHEMA, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} could not be written ({error}): free some space; "
            "the checkpoint before it is untouched."
        ) from error


def save_last(state: dict[str, Any], folder: Path) -> None:
    """Write `last.pt`; the one before stays as `previous.pt`, should `last.pt` be damaged later."""
    last = folder / "last.pt"
    if last.exists():
        try:
            _keep(last, folder / "previous.pt")
        except OSError as error:
            raise CheckpointError(
                f"{folder / 'previous.pt'} could not be written ({error}): free some space; "
                "last.pt is untouched."
            ) from error
    save(state, last)


def _keep(path: Path, name: Path) -> None:
    """Give the file `path` the second name `name`; a copy where the disk knows no hard links."""
    link = name.with_name(f".{name.name}.tmp")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)  # not a rename: there is a last.pt at every moment
    except OSError:
        shutil.copyfile(path, link)
    os.replace(link, name)


def load_last(path: Path) -> dict[str, Any]:
    """The state to go on from: of a run folder's last.pt, or of the .pt file `path` itself."""
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
        before = path.with_name("previous.pt")
        if not before.is_file() or before == path:
            raise
        raise CheckpointError(f"{error} The one before it is there: --resume {before}") from error
    if "position" not in state:
        raise CheckpointError(f"{path} cannot be gone on from: give the last.pt of a run.")
    return state


def load(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises CheckpointError for anything but one of ours."""
    import torch

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}: give a run folder of har-train.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles; they are refused just below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError, KeyError) as error:
        first = str(error).split("\n", 1)[0][:120]
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({first}).") from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA or "model_name" not in state:
        raise CheckpointError(f"{path} is not a checkpoint of har-train (schema {SCHEMA}).")
    transform = state.get("preprocessing", {})
    for old, new in (("size", "crop_size"), ("resize", "resize_size")):  # before ClipTransform
        if old in transform:
            transform[new] = transform.pop(old)
    return state


def restore_model(state: dict[str, Any]) -> nn.Module:
    """A loaded checkpoint -> its model with its weights, in eval mode, on the CPU."""
    from ... import models

    options = dict(state["model_options"])
    if "weights" in models.options_of(state["model_name"]):
        options["weights"] = "none"  # the checkpoint's own weights follow
    model = models.build(state["model_name"], len(state["classes"]), **options)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the checkpoint does not hold the weights of {state['model_name']} ({detail})."
        ) from error
    return model.eval()
