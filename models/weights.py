"""Weight files: find them, read them without running anything in them, refuse what does not fit.

Nothing ever falls back to random weights: every failure is one sentence that says what to do next
(`WeightsError`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HarError

KINETICS = "kinetics400"
NONE = "none"
CLASSIFIER = "fc."  # the layer that the paper (S1.4) replaces; never taken from a file
# torchvision's KINETICS400_V1 weights; the name ends in the first 8 digits of the SHA-256
KINETICS_URLS = {
    "r3d_18": "https://download.pytorch.org/models/r3d_18-b3b3357e.pth",
    "r2plus1d_18": "https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
    "mc3_18": "https://download.pytorch.org/models/mc3_18-a90a0ba3.pth",
}


class WeightsError(HarError):
    """Pretrained weights that cannot be found, read or fitted; the message says what to do."""


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights of a network came from; shown to the user, kept in checkpoints.

    source: "kinetics400" or "file"; path: the file read; sha256: of the whole file, in hex.
    """

    source: str
    path: str
    sha256: str


def resolve_weights(
    weights: str | Path | None, builder: str
) -> tuple[dict[str, Tensor], WeightsInfo] | None:
    """Resolve the `weights` option to a state dict, or None for "none".

    builder: torchvision's name for the network whose Kinetics weights "kinetics400" means.
    Raises WeightsError where the file is missing, cannot be fetched, or is not a state dict.
    """
    if weights is None or weights == NONE:
        return None
    path = _kinetics_file(builder) if weights == KINETICS else Path(weights)
    state_dict = read_state_dict(path)
    source = KINETICS if weights == KINETICS else "file"
    return state_dict, WeightsInfo(source=source, path=str(path), sha256=_sha256(path))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict (or a checkpoint holding one as "model" or "state_dict") to the CPU.

    Only plain tensors are read (`weights_only=True`): a pickle with anything else in it is
    refused, not run. Raises WeightsError.
    """
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise WeightsError(
            f"the weights file {path} {problem}; pass --weights a state dict saved with "
            f"torch.save, or --weights {NONE} to start from random weights"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen types for damaged or foreign files
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"the weights file {path} cannot be read as a state dict of plain tensors "
            f"({type(error).__name__}: {first_line[:120]}); nothing in it was run; "
            f"save one with torch.save(model.state_dict(), path) or fetch it again"
        ) from error
    if isinstance(content, Mapping):
        for key in ("state_dict", "model"):
            if isinstance(content.get(key), Mapping):
                return _check_tensors(content[key], path)
    return _check_tensors(content, path)


def load_into(
    model: nn.Module, state_dict: Mapping[str, Tensor], origin: str, hint: str = ""
) -> None:
    """Load every entry but the classifier's, after checking that all of them fit.

    origin: what the error calls the weights. Raises WeightsError that names the first keys that
    are missing, unexpected or of another shape; the model is then unchanged. A file may lack
    `num_batches_tracked`: files older than that counter do, and nothing here reads it.
    """
    new = {k: v for k, v in state_dict.items() if not k.startswith(CLASSIFIER)}
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(CLASSIFIER)}
    missing = [k for k in own if k not in new and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in new if k not in own]
    misshapen = [k for k in own if k in new and own[k].shape != new[k].shape]
    problems = [
        f"{len(keys)} {problem} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for problem, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    if misshapen:
        key = misshapen[0]
        problems.append(
            f"{len(misshapen)} of another shape ({key} is {tuple(new[key].shape)}, "
            f"not {tuple(own[key].shape)})"
        )
    if problems:
        advice = hint or "pass the weights of the same network"
        raise WeightsError(f"{origin} do not fit this network: {'; '.join(problems)}; {advice}")
    model.load_state_dict(new, strict=False)


def _kinetics_file(builder: str) -> Path:
    """torchvision's Kinetics-400 file from its cache, fetched into it where it is missing."""
    url = KINETICS_URLS[builder]
    name = url.rsplit("/", 1)[-1]
    digest = name.removesuffix(".pth").rsplit("-", 1)[-1]
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


def _check_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The content of a weights file, if it is a dictionary of tensors by name."""
    if isinstance(content, Mapping):
        items = content.items()
        if items and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in items):
            return dict(content)
        description = f"a dictionary with {', '.join(map(repr, [*content][:3])) or 'nothing'}"
    else:
        description = f"a {type(content).__name__}"
    raise WeightsError(
        f"the weights file {path} holds {description}, not a state dict of named tensors; "
        f"save one with torch.save(model.state_dict(), path)"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
