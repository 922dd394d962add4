"""Weight files: find them, read them without running anything in them, refuse what does not fit.

What is odd here: nothing ever falls back to random weights, so every way this can fail is one
sentence that says what to do next (`WeightsError`). torch is imported inside the functions,
because `models` exports the names of this file and must stay light to import.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HarError

if TYPE_CHECKING:
    from torch import Tensor, nn

KINETICS = "kinetics400"
NONE = "none"
CLASSIFIER = "fc."  # the layer that the paper (S1.4) replaces; never taken from a file
_WRAPPERS = ("state_dict", "model")  # keys under which checkpoints commonly hold the state dict


class WeightsError(HarError):
    """Pretrained weights that cannot be had, read or fitted; the message says what to do."""


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights of a network came from; shown to the user, kept in checkpoints.

    source: "kinetics400" or "file"; path: the file read; sha256: of the whole file, in hex.
    """

    source: str
    path: str
    sha256: str


def obtain(
    weights: str | Path | None, builder: str
) -> tuple[dict[str, Tensor], WeightsInfo] | None:
    """Resolve the `weights` option to a state dict, or None for "none".

    builder: torchvision's name for the network whose Kinetics weights "kinetics400" means.
    Raises WeightsError where the file is missing, cannot be fetched, or is not a state dict.
    """
    if weights is None or weights == NONE:
        return None
    path = _kinetics_file(builder) if weights == KINETICS else Path(weights)
    state, sha256 = read_state_dict(path)
    source = KINETICS if weights == KINETICS else "file"
    return state, WeightsInfo(source=source, path=str(path), sha256=sha256)


def read_state_dict(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """Read a state dict (or a checkpoint holding one as "model" or "state_dict") to the CPU.

    Returns the tensors by name and the file's SHA-256. Only plain tensors are read
    (`weights_only=True`): a pickle with anything else in it is refused, not run.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise WeightsError(
            f"the weights file {path} {what}; pass --weights a state dict saved with torch.save, "
            f"or --weights {NONE} to start from random weights"
        )
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen types for damaged or foreign files
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"the weights file {path} cannot be read as a state dict of plain tensors "
            f"({type(error).__name__}: {first_line[:120]}); nothing in it was run; "
            f"save one with torch.save(model.state_dict(), path) or fetch it again"
        ) from error
    return _tensors_by_name(held, path), _sha256(path)


def load_into(network: nn.Module, state: Mapping[str, Tensor], origin: str, hint: str = "") -> None:
    """Load every entry but the classifier's, after checking that all of them fit.

    Raises WeightsError that names the first keys that do not fit; the network is then unchanged.
    """
    body = {key: value for key, value in state.items() if not key.startswith(CLASSIFIER)}
    own = {k: v for k, v in network.state_dict().items() if not k.startswith(CLASSIFIER)}
    refuse_misfits(own, body, origin, hint)
    network.load_state_dict(body, strict=False)


def refuse_misfits(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], origin: str, hint: str = ""
) -> None:
    """Raise WeightsError where keys are missing, strange or of another shape.

    `num_batches_tracked` may be absent: files older than that counter lack it, and it is not used
    in arithmetic unless a batch norm has no momentum, which none of ours has.
    """
    missing = [k for k in own if k not in given and not k.endswith("num_batches_tracked")]
    strange = [k for k in given if k not in own]
    other = [k for k in own if k in given and own[k].shape != given[k].shape]
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("unexpected", strange))
        if keys
    ]
    if other:
        key = other[0]
        parts.append(
            f"{len(other)} of another shape ({key} is {tuple(given[key].shape)}, "
            f"not {tuple(own[key].shape)})"
        )
    if parts:
        advice = hint or "pass the weights of the same network"
        raise WeightsError(f"{origin} do not fit this network: {'; '.join(parts)}; {advice}")


def _kinetics_file(builder: str) -> Path:
    """torchvision's Kinetics-400 file from its cache, fetched into it where it is missing."""
    import torch
    from torchvision.models import get_model_weights

    url: str = get_model_weights(builder)["KINETICS400_V1"].value.url
    name = url.rsplit("/", 1)[-1]
    digest = name.removesuffix(".pth").rsplit("-", 1)[-1]  # torchvision: first 8 of the SHA-256
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), digest, sys.stderr.isatty())
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"the {KINETICS} weights {name} are not in {path.parent} and could not be "
                f"fetched ({error}); fetch {url} on a machine with network and pass it with "
                f"--weights PATH/{name}, or start from random weights with --weights {NONE}"
            ) from error
    elif not _sha256(path).startswith(digest):
        raise WeightsError(
            f"the cached weights {path} are damaged (their SHA-256 does not start with {digest}); "
            f"delete the file and try again"
        )
    return path


def _tensors_by_name(held: Any, path: Path) -> dict[str, Tensor]:
    import torch

    if isinstance(held, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(held.get(wrapper), Mapping):
                held = held[wrapper]
                break
        if held and all(
            isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in held.items()
        ):
            return dict(held)
    raise WeightsError(
        f"the weights file {path} holds {_describe(held)}, not a state dict of named tensors; "
        f"save one with torch.save(model.state_dict(), path)"
    )


def _describe(held: Any) -> str:
    if isinstance(held, Mapping):
        keys = ", ".join(map(repr, list(held)[:3])) or "nothing"
        return f"a dictionary with {keys}"
    return f"a {type(held).__name__}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
