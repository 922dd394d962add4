"""Weight files: find them, read them without running anything in them, refuse what does not fit.

Taken are state dicts, checkpoints that hold one, and run folders of har-train; the classifier never
is. Nothing ever falls back to random weights: every failure is one sentence that says what to do
next (`WeightsError`).
"""

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HarError
from .custom import head_name
from .upgrade import upgrade_state_dict

KINETICS = "kinetics400"
NONE = "none"
# torchvision's KINETICS400_V1 weights; the name ends in the first 8 digits of the SHA-256
KINETICS_URLS = {
    "r3d_18": "https://download.pytorch.org/models/r3d_18-b3b3357e.pth",
    "r2plus1d_18": "https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
    "mc3_18": "https://download.pytorch.org/models/mc3_18-a90a0ba3.pth",
}


# what torchvision's networks have; the defaults of `VideoResNet`
KINETICS_OPTIONS = {"width": 64, "temporal_stride": 2, "stem_pool": False}


class WeightsError(HarError):
    """Pretrained weights that cannot be found, read or fitted; the message says what to do."""


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights of a network came from, and what of it they are.

    source: "kinetics400" or "file"; path: the file read; sha256: of the whole file, in hex. run: of
    a checkpoint of har-train what it is of, else "". loaded, not_loaded: names of the network's
    parameters and buffers; unused: those of the file that it did not take. pretrained_on: of one of
    har-pretrain, {"split", "keys", "groups"} of the clips that it saw. trained_on: of one of
    har-train, its {"split", "config", "manifest_digest"}. model_options: of a run, those of its
    network.
    """

    source: str
    path: str
    sha256: str
    run: str = ""
    loaded: tuple[str, ...] = ()
    not_loaded: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    pretrained_on: Mapping[str, Any] = field(default_factory=dict)
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """For the log: the file, what was loaded and what was not."""
        total = len(self.loaded) + len(self.not_loaded)
        return (
            f"weights {self.path}, sha256 {self.sha256}{self.run and f', {self.run}'}: "
            f"{len(self.loaded)} of {total} tensors loaded; new: "
            f"{_shorten(self.not_loaded)}; in the file and not used: {_shorten(self.unused)}"
        )


def load_weights(
    model: nn.Module,
    weights: str | Path | None,
    *,
    builder: str | None,
    model_name: str,
    hint: str = "",
) -> WeightsInfo | None:
    """Load the option `weights` into a network, all but its classifier; None for "none".

    weights: "kinetics400", a file, or a run folder. builder: torchvision's name of the network
    whose weights "kinetics400" means, None where there are none. model_name: ours. hint: what
    weights of that builder need. Raises WeightsError where they are missing, damaged or do not fit;
    the model is then unchanged.
    """
    if weights is None or weights == NONE:
        return None
    if weights == KINETICS and builder is None:
        raise WeightsError(
            f"there are no {KINETICS} weights for {model_name}: give --weights a state dict or a "
            f"run folder of {model_name}, or {NONE}"
        )
    path = _kinetics_file(str(builder)) if weights == KINETICS else _weights_file(Path(weights))
    state_dict, run = read_weights(path)
    state_dict, text = upgrade_state_dict(run.get("model_name", model_name), state_dict), ""
    if run:
        kind = f"{len(run['classes'])} classes"
        if run["pretrained_on"]:
            kind = f"pretrained on split {run['pretrained_on']['split']['name']}"
        text = f"a run of {run['model_name']}, {kind}, epoch {run['epoch']}"
        hint = f"the file is of --model {run['model_name']}"
        if run["model_name"] == model_name:
            hint += f" with --model-options '{_other_options(model, run['model_options'])}'"
    loaded = load_into(model, state_dict, f"the weights in {path}", hint)
    own = model.state_dict()
    return WeightsInfo(
        KINETICS if weights == KINETICS else "file",
        str(path),
        _sha256(path),
        text,
        loaded=tuple(name for name in own if name in loaded),
        not_loaded=tuple(name for name in own if name not in loaded),
        unused=tuple(name for name in state_dict if name not in loaded),
        pretrained_on=run.get("pretrained_on", {}),
        trained_on=run.get("trained_on", {}),
        model_options=run.get("model_options", {}),
    )


def default_options(constructor: Callable[..., Any]) -> dict[str, Any]:
    """What a network's constructor takes by name, with the defaults; `**options` in it stand for
    those of the base class."""
    parameters = inspect.signature(constructor).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    if isinstance(constructor, type) and any(p.kind is p.VAR_KEYWORD for p in parameters):
        defaults |= default_options(constructor.__base__ or object)
    return defaults


def _other_options(model: nn.Module, options: Mapping[str, Any]) -> str:
    """The options of a run that are not the network's defaults, as --model-options takes them, and
    its `input` where this network has another."""
    defaults = default_options(type(model))
    defaults |= {"input": getattr(model, "input", defaults.get("input"))}
    texts = {
        name: f"[{';'.join(map(str, value))}]" if isinstance(value, (tuple, list)) else str(value)
        for name, value in options.items()
        if name in defaults and name != "freeze" and value != defaults[name]
    }
    return ",".join(f"{name}={text.lower()}" for name, text in texts.items())


def check_kinetics_options(
    model_name: str, options: Mapping[str, Any], needed: Mapping[str, Any]
) -> str:
    """Refuse "kinetics400" for a network built otherwise than torchvision's: WeightsError; -> what
    to say where another file of torchvision's does not fit, or "".

    options: those that were given. needed: those that these weights need. Some change no tensor's
    shape (the strides), so the weights would load and mean something else.
    """
    wrong = {k: options[k] for k, value in needed.items() if options.get(k, value) != value}
    if not wrong:
        return ""
    needs = ",".join(f"{name}={str(value).lower()}" for name, value in needed.items())
    if options.get("weights") == KINETICS:
        given = ", ".join(f"{name}={value!r}" for name, value in wrong.items())
        raise WeightsError(
            f"the {KINETICS} weights of {model_name} need {needs}, got {given}: change that in "
            f"--model-options, or start with --weights {NONE}"
        )
    return f"torchvision's weights need {needs}"


def parts_up_to(last: str | None, parts: Sequence[str]) -> tuple[str, ...]:
    """The option `freeze`: the parts of a network up to `last`, none for "none". ValueError."""
    if last is None or last == NONE:
        return ()
    if last not in parts:
        raise ValueError(f"freeze must be none or one of {', '.join(parts)}, got {last!r}")
    return tuple(parts[: parts.index(last) + 1])


def _shorten(names: Sequence[str]) -> str:
    return ", ".join([*names[:4], f"{len(names) - 4} more"][: len(names)]) or "none"


def _weights_file(path: Path) -> Path:
    """A file as it is; of a run folder its best.pt."""
    if path.is_dir() and (path / "best.pt").is_file():
        return path / "best.pt"
    if not path.is_file():
        problem = "is a folder without a best.pt" if path.is_dir() else "does not exist"
        if (path / "folds.json").is_file():
            problem = f"holds the runs of several folds (take one of them, e.g. {path / 'fold-1'})"
        raise WeightsError(
            f"the weights file {path} {problem}; pass --weights a state dict saved with "
            f"torch.save, a run folder of har-train, or {NONE} to start from random weights"
        )
    return path


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """-> a state dict (or what a checkpoint holds as "model" or "state_dict") on the CPU, and of a
    checkpoint of har-train its model_name, model_options, classes and epoch, and what it saw:
    trained_on, or of har-pretrain pretrained_on.

    Only plain tensors are read (`weights_only=True`): a pickle with anything else in it is
    refused, not run. Prefixes of DDP and torch.compile are taken off the names. Raises
    WeightsError.
    """
    try:
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
        entries = ("model_name", "model_options", "classes", "epoch")
        if all(name in content for name in entries):
            run = {name: content[name] for name in entries}
            run["pretrained_on"] = content.get("pretrained_on", {})
            seen = ("split", "config", "manifest_digest")
            if not run["pretrained_on"] and all(name in content for name in seen):
                run["trained_on"] = {name: content[name] for name in seen}
        for key in ("state_dict", "model"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    state_dict = _check_tensors(content, path)
    return {_WRAPPERS.sub("", name): tensor for name, tensor in state_dict.items()}, run


_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # DDP's (and AveragedModel's), torch.compile's


def load_into(
    model: nn.Module, state_dict: Mapping[str, Tensor], origin: str, hint: str = ""
) -> set[str]:
    """Load every entry but the classifier's, which the paper replaces (S1.4), after checking that
    all of them fit; -> their names.

    origin: what the error calls the weights. Raises WeightsError that names the first keys that
    are missing, unexpected or of another shape; the model is then unchanged. A file may lack
    `num_batches_tracked`: files older than that counter do, and nothing here reads it. It may have
    an AveragedModel's `n_averaged`.
    """
    head = head_name(model)
    left_out = ("n_averaged", *([f"{head}."] if head else []))
    new = {k: v for k, v in state_dict.items() if not k.startswith(left_out)}
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(left_out)}
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
    return set(new)


def _kinetics_file(builder: str) -> Path:
    """torchvision's Kinetics-400 file from its cache, fetched into it where it is missing."""
    url = KINETICS_URLS[builder]
    name = url.rsplit("/", 1)[-1]
    digest = name.removesuffix(".pth").rsplit("-", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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
