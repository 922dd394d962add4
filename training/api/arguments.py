"""The options of a call from Python: their names and types are told before any work.

The command line has click for that; what a value may be is checked where it is used.
"""

import os
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ..values import ConfigError, check_names, check_type, plain_value

_MINIMUM = {"batch_size": 1, "folds": 2, "max_mb": 1, "max_seconds": 1, "stream": 0, "views": 1}


def check_options(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` for the keyword-only parameters of `function`, a text where it takes a Path as one.

    Raises ConfigError for a name that it has not, and a type that its hint does not allow.
    """
    parameters = signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
    check_names(options, names, "option")
    hints = get_type_hints(function)
    return {name: _check(name, value, hints[name]) for name, value in options.items()}


def check_path(name: str, value: Any) -> Path:
    """A str or a Path -> a Path, "~" as the home folder. Raises ConfigError."""
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name} = {value!r} has the wrong type: give a path, as text or Path.")
    return Path(value).expanduser()


def _check(name: str, value: Any, hint: Any) -> Any:
    if value is None:
        return None
    value, types = plain_value(value), get_args(hint) or (hint,)
    if Path in types:
        path = check_path(name, value)
        return value if str in types else path  # text stays text where it may be a URL
    check_type(name, value, hint)
    if name in _MINIMUM and value < _MINIMUM[name]:
        option = f"--{name.replace('_', '-')}"
        raise ConfigError(f"{option} {value} does not work: give {_MINIMUM[name]} or more.")
    if any(get_origin(kind) is Callable for kind in types) and not callable(value):
        raise ConfigError(f"{name} = {value!r} has the wrong type: give a function.")
    return value
