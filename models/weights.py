"""Weights to start from: find them, load them, refuse what does not fit.

Taken are state dicts, checkpoints that hold one, and run folders of har-train; the classifier never
is. Nothing ever falls back to random weights: every failure is one sentence that says what to do
next (`WeightsError`).
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .custom import head_name
from .state_dicts import WeightsError, read_weights, rename_like

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


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights of a network came from, and what of it they are.

    source: "kinetics400" or "file"; path: the file read; sha256: of the whole file, in hex. run: of
    a checkpoint of har-train what it is of, else "". loaded, not_loaded: names of the network's
    parameters and buffers; unused: those of the file that it did not take. data: of a run what it
    saw, then what each run saw that it started from: of har-pretrain {"split", "keys", "groups"}
    (of clips), of har-train {"split", "config", "manifest_digest"}. model_options: of a run, those
    of its network.
    """

    source: str
    path: str
    sha256: str
    run: str = ""
    loaded: tuple[str, ...] = ()
    not_loaded: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    data: tuple[Mapping[str, Any], ...] = ()
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
    own, text = model.state_dict(), ""
    state_dict = rename_like(state_dict, own, run.get("model_name", model_name), path)
    if run:
        kind = f"{len(run['classes'])} classes"
        if run["data"] and "keys" in run["data"][0]:
            kind = f"pretrained on split {run['data'][0]['split']['name']}"
        text = f"a run of {run['model_name']}, {kind}, epoch {run['epoch']}"
        hint = f"the file is of --model {run['model_name']}"
        others = _other_options(model, run["model_options"])
        if run["model_name"] == model_name and others:
            hint += f" with --model-options '{others}'"
    loaded = load_into(model, state_dict, f"the weights in {path}", hint)
    return WeightsInfo(
        KINETICS if weights == KINETICS else "file",
        str(path),
        _sha256(path),
        text,
        loaded=tuple(name for name in own if name in loaded),
        not_loaded=tuple(name for name in own if name not in loaded),
        unused=tuple(name for name in state_dict if name not in loaded),
        data=run.get("data", ()),
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


def load_into(
    model: nn.Module, state_dict: Mapping[str, Tensor], origin: str, hint: str = ""
) -> set[str]:
    """Load every entry but the classifier's, which the paper replaces (S1.4), after checking that
    all of them fit; -> their names.

    origin: what the error calls the weights. Raises WeightsError that names the first keys that
    are missing, unexpected or of another shape, and a tensor whose values cannot be taken; the
    model is then unchanged. A file may lack
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
    for name, value in new.items():
        _check_values(name, value, own[name], origin)
    model.load_state_dict(new, strict=False)
    return set(new)


def _check_values(name: str, value: Tensor, own: Tensor, origin: str) -> None:
    """Raise WeightsError for a tensor without values or of another layout; for integers or complex
    numbers where the network has floating-point ones (or the other way); for nan and infinity where
    it has none itself, as masks do."""
    if value.is_meta or value.layout != own.layout:
        kind = "meta" if value.is_meta else str(value.layout).removeprefix("torch.")
        raise WeightsError(
            f"{origin} cannot be loaded: {name} is a {kind} tensor there and another kind in this "
            "network; pass the state dict of the same network, with its values"
        )
    kinds = [(tensor.is_floating_point(), tensor.is_complex()) for tensor in (value, own)]
    if kinds[0] != kinds[1] and not name.endswith("num_batches_tracked"):
        raise WeightsError(
            f"{origin} cannot be loaded: {name} is {value.dtype} there and {own.dtype} in this "
            "network; pass weights of its kind, saved before they were quantized or changed"
        )
    if own.layout != torch.strided:
        return
    if not value.to(own.dtype).isfinite().all() and own.isfinite().all():
        raise WeightsError(
            f"{origin} cannot be loaded: {name} holds nan or infinity, so that training had gone "
            "wrong before they were saved; pass those of an earlier epoch"
        )


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
