"""Values of settings, as text and as Python has them: options of a model, names and types, and
names of earlier versions.

Command lines import this module, so it imports nothing heavy.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from ..errors import HarError, suggest


class ConfigError(HarError):
    """A setting outside what is allowed; the text is one sentence."""


def plain_value(value: Any) -> Any:
    """A path as text, an open shard set as where it is, a number of numpy or torch as Python's;
    anything else as it is."""
    value = value.manifest.root if hasattr(value, "manifest") else value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if getattr(value, "shape", None) == () else value


def check_names(names: Iterable[str], allowed: Iterable[str], what: str) -> None:
    """Raise ConfigError for the first of `names` that is not `allowed`; what: "setting"."""
    known = sorted(allowed)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"unknown {what} {name!r}{suggest(name, known)}: the {what}s are "
                f"{', '.join(known)}."
            )


_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def check_type(name: str, value: Any, hint: Any) -> None:
    """Raise ConfigError for text where a number belongs, and the like. None is for "not given"."""
    types = [kind for kind in get_args(hint) or (hint,) if kind in _TYPES]
    valid = type(value) in types or (type(value) is int and float in types)
    if value is not None and types and not valid:
        is_class = isinstance(value, type)
        hint = f", e.g. {value.__module__}:{value.__qualname__}" if is_class else ""
        raise ConfigError(f"{name} = {value!r} has the wrong type: give {_TYPES[types[0]]}{hint}.")


def format_options(options: Mapping[str, Any]) -> str:
    """The opposite of `parse_options`, for options that survive it."""

    def text_of(value: Any) -> str:
        if isinstance(value, list | tuple):
            return f"[{';'.join(text_of(item) for item in value)}]"
        return str(value).lower() if isinstance(value, bool) else str(value)

    options = {name: plain_value(value) for name, value in options.items()}
    text = ",".join(f"{name}={text_of(value)}" for name, value in options.items())
    lists = {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
    if parse_options(text) != options | lists:
        raise ConfigError(
            f"model_options {dict(options)!r} cannot be kept: give a dict of numbers, True, False, "
            "text without a comma, and lists of these."
        )
    return text


def parse_options(text: str) -> dict[str, Any]:
    """'width=32,hidden=[32;64],peephole=true' -> a dict; a list is split at semicolons."""
    options: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ConfigError(
                f"--model-options {text!r} does not read as name=value,name=value: "
                "give e.g. 'width=32,dropout=0.2'."
            )
        options[name.strip()] = _parse_value(value.strip())
    return options


def _parse_value(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return tuple(_parse_value(item.strip()) for item in text[1:-1].split(";"))
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_RENAMED = {  # since checkpoint schema 1
    "schedule": "lr_scheduler", "ema": "ema_decay", "clip_norm": "clip_grad",
    "accumulate": "grad_accum_steps", "flip": "hflip", "degrees": "rotation",
    "jitter": "temporal_jitter", "max_bad": "max_corrupt", "shuffle_window": "shuffle_block_size",
}  # fmt: skip


def upgrade_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an old run (checkpoint schema 1) under their names and values of today."""
    upgraded = {_RENAMED.get(name, name): value for name, value in values.items()}
    mix, alpha = upgraded.pop("mix", "none"), upgraded.pop("mix_alpha", 0.2)
    if mix != "none":
        upgraded[f"{mix}_alpha"] = alpha
    if "memory" in upgraded:
        memory = upgraded.pop("memory")
        upgraded["recompute"] = {"lean": "on", "fast": "off"}.get(memory, "auto")
    if isinstance(upgraded.get("compile"), str):
        upgraded["compile"] = upgraded["compile"] == "on"
    return upgraded
