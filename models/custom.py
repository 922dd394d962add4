"""Models of the user: `module:Class`, `module:function`, or an entry point of group `har.models`.

docs/models.md says what one must have.

Notes: who names a module runs its code, and a checkpoint holds the name. So of a name that nobody
gave in this command (`allow`) the module is looked for without running anything, must be no part
of Python itself, must hold that name in its source, and may give a class of torch.nn.Module only:
functions take any option that a stranger wrote. An entry point was installed as a model.
"""

import ast
import importlib
import inspect
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HarError
from ..shards.transforms.clip_transform import ClipTransform

ENTRY_POINTS = "har.models"
VARIABLE = "HAR_MODEL"  # names that this command and its child processes may take functions of
DEFAULT_HEAD = "fc"
_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_PAGE = "docs/models.md"
Constructor = Callable[..., Any]


class CustomModelError(HarError):
    """A model of the user that is not there, or not as docs/models.md says; one sentence."""


def allow(name: str) -> None:
    """Note that the user named this model: a function may be called, in child processes too."""
    named = [*filter(None, os.environ.get(VARIABLE, "").split(",")), name]
    os.environ[VARIABLE] = ",".join(dict.fromkeys(named))


def load_constructor(name: str) -> Constructor:
    """The class or function behind a name. Runs its module, where the notes above allow it.

    Raises CustomModelError, and KeyError for a name without a colon that no package has.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        constructor = _load_entry_point(name)
    else:
        constructor = _load_attribute(name, *match.groups())
    if not callable(constructor):
        raise CustomModelError(f"{name} is a {type(constructor).__name__}: name a class ({_PAGE}).")
    first = next(iter(_signature(name, constructor).parameters.values()), None)
    if first is None or first.name != "num_classes" or first.kind is first.KEYWORD_ONLY:
        raise CustomModelError(
            f"{name} does not take num_classes as its first argument: a model is made by "
            f"{name.rpartition(':')[2]}(num_classes, option=default, ...) ({_PAGE})."
        )
    return constructor


def _load_entry_point(name: str) -> Any:
    for entry in metadata.entry_points(group=ENTRY_POINTS, name=name):
        try:
            return entry.load()
        except (Exception, SystemExit) as error:
            raise CustomModelError(
                f"model {name!r} of the package {entry.dist and entry.dist.name} cannot be loaded "
                f"({_describe(error)}): mend or remove the package."
            ) from error
    raise KeyError(name)


def _load_attribute(name: str, module_name: str, attribute: str) -> Any:
    is_named = name in os.environ.get(VARIABLE, "").split(",")
    if (folder := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does; commands have their own folder there
    importlib.invalidate_caches()
    if module_name not in sys.modules:
        _check_source(name, module_name, None if is_named else attribute)
        try:
            importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            raise CustomModelError(
                f"{name}: the module {module_name} cannot be imported ({_describe(error)})."
            ) from error
    constructor = getattr(sys.modules[module_name], attribute, None)
    if constructor is None:
        raise _missing(name, module_name, attribute)
    is_class = isinstance(constructor, type)
    if is_class and not issubclass(constructor, nn.Module):
        raise CustomModelError(f"{name} is no subclass of torch.nn.Module ({_PAGE}).")
    if not is_class and not is_named:
        raise _no_class(name)
    return constructor


def _check_source(name: str, module_name: str, attribute: str | None) -> None:
    """Look for a module without running anything. attribute: that its source must hold."""
    parts, path, spec = module_name.split("."), None, None
    if parts[-1] == "py":
        right = f"{'.'.join(parts[:-1])}:{name.partition(':')[2]}"
        raise CustomModelError(f"{name}: name the module without .py: {right}.")
    for part in itertools.accumulate(parts, "{}.{}".format):
        found = (f.find_spec(part, path, None) for f in sys.meta_path if hasattr(f, "find_spec"))
        spec = next(filter(None, found), None)
        if spec is None:
            raise CustomModelError(
                f"{name}: there is no module {part!r} in {os.getcwd()} or on sys.path: start the "
                f"command where {parts[0]}.py lies, or add its folder to PYTHONPATH."
            )
        path = spec.submodule_search_locations or []
    if attribute is None:
        return
    if parts[0] in sys.stdlib_module_names:
        raise CustomModelError(f"{name}: {parts[0]} is a module of Python itself and has no model.")
    source = getattr(spec.loader, "get_source", lambda _: None)(module_name) if spec else None
    try:
        nodes = list(ast.walk(ast.parse(source or "")))
    except (SyntaxError, ValueError):
        nodes = []
    if attribute in {n.name for n in nodes if isinstance(n, ast.FunctionDef)}:
        raise _no_class(name)
    names = {n.name for n in nodes if isinstance(n, ast.ClassDef)}
    names |= {n.asname or n.name for n in nodes if isinstance(n, ast.alias)}
    names |= {n.id for n in nodes if isinstance(n, ast.Name) and type(n.ctx) is ast.Store}
    if attribute not in names:
        raise _missing(name, module_name, attribute)


def _no_class(name: str) -> CustomModelError:
    return CustomModelError(
        f"{name} is no class, and a run alone calls no function: where it is yours, name it in "
        f"the command ({VARIABLE}={name} har-eval ...), or make it a class ({_PAGE})."
    )


def _missing(name: str, module_name: str, attribute: str) -> CustomModelError:
    if module_name == "__main__":
        return CustomModelError(
            f"{name}: a class of a notebook's cells is known in that notebook alone: for commands "
            f"and other programs put it into a file, and train it from there ({_PAGE})."
        )
    return CustomModelError(f"{name}: the module {module_name} has no {attribute!r} ({_PAGE}).")


def _signature(name: str, constructor: Constructor) -> inspect.Signature:
    try:
        return inspect.signature(constructor)
    except (TypeError, ValueError) as error:
        raise CustomModelError(f"{name} does not say what it takes ({error}).") from error


def list_options(name: str, constructor: Constructor) -> dict[str, Any]:
    """The options with a default that a checkpoint can hold: None, numbers, strings, lists."""
    _, *parameters = _signature(name, constructor).parameters.values()
    return {p.name: p.default for p in parameters if _is_plain(p.default)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def construct(
    name: str, constructor: Constructor, num_classes: int, options: Mapping[str, Any]
) -> nn.Module:
    """The model, checked for what can be seen without running it. Raises CustomModelError."""
    try:
        _signature(name, constructor).bind(num_classes, **options)
    except TypeError as error:
        _, *known = _signature(name, constructor).parameters.values()
        raise CustomModelError(
            f"--model-options of {name}: {error}; it takes {', '.join(map(str, known)) or 'none'}."
        ) from error
    try:
        model = constructor(num_classes, **options)
    except Exception as error:
        raise CustomModelError(f"{name} cannot be made ({_describe(error)}).") from error
    if not isinstance(model, nn.Module):
        raise CustomModelError(
            f"{name} gives a {type(model).__name__}, no torch.nn.Module ({_PAGE})."
        )
    if not isinstance(getattr(model, "transform", ClipTransform()), ClipTransform):
        raise CustomModelError(
            f"{name}: its transform is no har.shards.transforms.clip_transform.ClipTransform."
        )
    parts = dict(model.named_modules())
    for attribute in ("head_name", "cam_layer"):
        part = getattr(model, attribute, None)
        if part is not None and part not in parts:
            raise CustomModelError(
                f"{name}: its {attribute} is {part!r}, and it has no part of that name; its parts "
                f"are {', '.join(dict(model.named_children())) or 'none'}."
            )
    return model


def check_forward(model: nn.Module, name: str, num_classes: int, clips: Tensor) -> None:
    """Run the model in evaluation mode on clips [B,3,T,H,W]; it is left as it was.

    Raises CustomModelError where it fails, or its answer is not logits [B,K] that learn.
    """
    shape = f"clips {list(clips.shape)}"
    was_training = model.training
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            logits = model.eval()(clips)
    except Exception as error:
        raise CustomModelError(
            f"{name} fails on {shape} ({_describe(error)}): a model takes float32 [B,3,T,H,W] and "
            f"returns logits [B,{num_classes}] ({_PAGE})."
        ) from error
    finally:
        model.train(was_training)
    is_tensor = isinstance(logits, Tensor)
    if not is_tensor or logits.shape != (len(clips), num_classes):
        given = str(list(logits.shape)) if is_tensor else f"a {type(logits).__name__}"
        raise CustomModelError(
            f"{name} returns {given} for {shape}: a model returns logits "
            f"[{len(clips)},{num_classes}], a row a clip and a column a class ({_PAGE})."
        )
    if not logits.is_floating_point() or not logits.requires_grad:
        raise CustomModelError(
            f"{name} returns {logits.dtype} that no parameter learns from: a model returns logits "
            f"that its parameters were computed into ({_PAGE})."
        )


def head_name(model: nn.Module) -> str | None:
    """The part that classifies: what `head_name` says, else `fc`; None where there is none."""
    name: str | None = getattr(model, "head_name", None)
    return name or (DEFAULT_HEAD if DEFAULT_HEAD in dict(model.named_children()) else None)


def freeze_parts(model: nn.Module, name: str, last: str) -> None:
    """`--freeze`: keep the parts up to `last` as they are in training, batch norm too.

    The parts are the model's children, in the order they were made, up to the classifier. Raises
    CustomModelError for another name.
    """
    head = (head_name(model) or "").split(".")[0]
    parts = list(dict(model.named_children()))
    parts = parts[: parts.index(head)] if head in parts else parts
    if last not in parts:
        raise CustomModelError(
            f"--freeze {last}: {name} has no such part before its classifier; choose one of "
            f"{', '.join(['none', *parts])}."
        )
    frozen = tuple(parts[: parts.index(last) + 1])
    for part in frozen:
        model.get_submodule(part).requires_grad_(False)
    model.register_forward_pre_hook(_FrozenParts(frozen))


class _FrozenParts:
    """A hook that keeps parts of a model in evaluation mode; it goes with copies of the model."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __call__(self, model: nn.Module, _: Any) -> None:
        for name in self.names:
            model.get_submodule(name).eval()


def _describe(error: BaseException) -> str:
    """Type, first line and place of an error in the user's code."""
    text = (str(error).strip() or "no text").splitlines()[0][:160]
    frames = traceback.extract_tb(error.__traceback__)
    foreign = (os.path.dirname(torch.__file__), os.path.dirname(__file__), "<frozen")
    own = [frame for frame in frames if not frame.filename.startswith(foreign)]
    place = f", {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""
    return f"{type(error).__name__}: {text}{place}"
