"""Weight files as they are read: a state dict, and what a checkpoint of har says beside it.

Nothing in a file is run, and what is used of it is checked here: every failure is one sentence
(`WeightsError`).
"""

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import HarError
from .upgrade import upgrade_state_dict

_WRAPPERS = ("module.", "_orig_mod.")  # of DDP and AveragedModel, of torch.compile
# The entries of a checkpoint that are used, and their types; the lists are of text.
_RUN = {"model_name": str, "model_options": Mapping, "classes": list, "epoch": int}
_SPLIT = {"name": str, "seed": int, "digest": str}
_PRETRAINED = {"split": Mapping, "keys": list, "groups": list}
_TRAINED = {"split": Mapping, "config": Mapping, "manifest_digest": str}


class WeightsError(HarError):
    """Pretrained weights that cannot be found, read or fitted; the message says what to do."""


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """-> a state dict (or what a checkpoint holds as "model" or "state_dict") on the CPU, and of a
    checkpoint of har its model_name, model_options, classes, epoch and `data`: see `WeightsInfo`.

    Only plain tensors are read (`weights_only=True`): a pickle with anything else in it is
    refused, not run. Raises WeightsError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of tensors that are refused just below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen types for damaged or foreign files
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"the weights file {path} cannot be read as a state dict of plain tensors "
            f"({type(error).__name__}: {first_line[:120]}); nothing in it was run; "
            f"save one with torch.save(model.state_dict(), path) or fetch it again"
        ) from error
    run: dict[str, Any] = {}
    if isinstance(content, Mapping):
        if all(name in content for name in _RUN):
            run = {**_take(content, _RUN, path), "data": _read_data(content, path)}
        for key in ("state_dict", "model"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    return _check_tensors(content, path), run


def _read_data(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], ...]:
    """What a run saw, then the same of the runs that it started from, each once."""
    data: list[dict[str, Any]] = []
    if "pretrained_on" in content:
        data.append(_take(content["pretrained_on"], _PRETRAINED, path, "pretrained_on."))
    elif all(name in content for name in _TRAINED):
        data.append(_take(content, _TRAINED, path))
    parents = _take({"parent_data": [], **content}, {"parent_data": list}, path)
    for parent in parents["parent_data"]:
        types = _PRETRAINED if isinstance(parent, Mapping) and "keys" in parent else _TRAINED
        data.append(_take(parent, types, path, "parent_data."))
    for entry in data:
        _take(entry["split"], _SPLIT, path, "split.")
        config = {"val_from_train": 0.0, **entry.get("config", {})}
        _take(config, {"val_from_train": (int, float)}, path, "config.")
    return tuple(entry for n, entry in enumerate(data) if entry not in data[:n])


def _take(values: Any, types: Mapping[str, Any], path: Path, owner: str = "") -> dict[str, Any]:
    """Those entries of `values` that `types` names. Raises WeightsError where one is missing or of
    another type."""
    values = values if isinstance(values, Mapping) else {}
    for name, kind in types.items():
        value = values.get(name)
        is_right = isinstance(value, kind)
        if kind is list and is_right and name != "parent_data":
            is_right = all(isinstance(item, str) for item in value)
        if not is_right:
            shown = f"is {value!r:.60}" if name in values else "is missing"
            raise WeightsError(
                f"the weights file {path} is no checkpoint that har wrote (its entry {owner}{name} "
                f"{shown}): take another file of the run, or save its state dict alone"
            )
    return {name: values[name] for name in types}


def _check_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The content of a weights file, if it is a dictionary of ordinary tensors by name."""
    advice = "save one with torch.save(model.state_dict(), path)"
    if isinstance(content, Mapping):
        items = content.items()
        if items and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in items):
            return dict(content)
        description = f"a dictionary with {', '.join(map(repr, [*content][:3])) or 'nothing'}"
    else:
        description = f"a {type(content).__name__}"
    raise WeightsError(
        f"the weights file {path} holds {description}, not a state dict of named tensors; {advice}"
    )


def rename_like(
    state_dict: Mapping[str, Tensor], names: Collection[str], model_name: str, path: Path
) -> dict[str, Tensor]:
    """The state dict under the network's `names`: those of older versions of `model_name` become
    today's, and what wraps a network (DDP, torch.compile) is taken off.

    A wrapper's prefix is before every name but `n_averaged`, and goes only where more names fit
    without it: a network may have a part `module` of its own. Raises WeightsError where two tensors
    would have one name.
    """
    unwrapped = dict(state_dict)
    candidates = [upgrade_state_dict(model_name, unwrapped)]
    while prefix := _shared_prefix(unwrapped):
        unwrapped = {name.removeprefix(prefix): value for name, value in unwrapped.items()}
        candidates.append(upgrade_state_dict(model_name, unwrapped))
    best = max(candidates, key=lambda renamed: len(renamed.keys() & set(names)))
    if len(best) < len(state_dict):
        raise WeightsError(
            f"the weights file {path} holds {len(state_dict)} tensors for {len(best)} names: some "
            "are there under the name of an older version and under today's; save the state dict "
            "of one network"
        )
    return best


def _shared_prefix(names: Collection[str]) -> str:
    """The wrapper's prefix that all names have, or ""."""
    wrapped = [name for name in names if name != "n_averaged"]
    prefixes = (p for p in _WRAPPERS if wrapped and all(name.startswith(p) for name in wrapped))
    return next(prefixes, "")
