"""The commands of the project, as pyproject.toml names them."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def load_command(name: str) -> Callable[..., Any]:
    """har-train -> `train_main`."""
    module, function = SCRIPTS[name].split(":")
    command: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return command
