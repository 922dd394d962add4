"""A run's folder: where it is, what is written at its start and end. It never writes over another.

config.toml (resolved), environment.json, metrics.jsonl (one line an epoch), best.pt, last.pt,
log.txt, the curves as PNG, summary.json at the end; with --tensorboard its events.
"""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ...atomic import write_atomically
from ...errors import HarError
from ...progress import write
from .. import config as configs
from ..config import Config, ConfigError
from . import checkpoint
from .device import device_name
from .precision import NAMES

PACKAGES = ("har-ucf101", "torch", "torchvision", "av", "webdataset", "numpy", "pillow")
_BEFORE_TRAINING = ("config.toml", "environment.json", "log.txt")  # written before it trains
# What may differ in a resumed run: how long, and on what machine, but not what is computed.
RESUMABLE = (
    "epochs", "max_minutes", "patience", "workers", "device", "save_every_minutes", "shards",
    "cache", "rank_timeout", "tensorboard", "recompute", "eval_train", "log_every",
)  # fmt: skip


def choose_folder(out: Path | None, model: str, root: Path = Path("runs")) -> Path:
    """--out, or the first free of runs/MODEL, runs/MODEL-2, ...; a folder in use is refused."""
    if out is None:
        model = model.rpartition(":")[2]
        names = (f"{model}-{n}" if n > 1 else model for n in range(1, 10_000))
        return next(root / name for name in names if not (root / name).exists())
    if refusal := describe_use(out):
        raise ConfigError(refusal)
    return out


def describe_use(folder: Path) -> str:
    """Why a new run cannot be written to `folder`; "" where it can, to one that is empty or new."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return ""
    begun = any((folder / name).is_file() for name in ("last.pt", "folds.json"))
    return (
        f"the run folder {folder} already exists: choose another --out"
        f"{f', or go on with --resume {folder}' * begun}; nothing was written."
    )


def remove_untrained(folder: Path) -> None:
    """Remove what a run wrote that failed before it had trained anything, so that the same command
    works again; a folder that holds more stays."""
    if folder.is_dir() and all(path.name in _BEFORE_TRAINING for path in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)


def load_resumed(
    path: Path, settings: dict[str, Any], kind: type[Config] = Config
) -> tuple[Config, Path, dict[str, Any]]:
    """-> (config, run folder, state) to resume: the checkpoint's, changed where `settings` may.

    kind: of the config. Raises CheckpointError or ConfigError, one sentence.
    """
    state = checkpoint.load_last(path)
    command = checkpoint.command_of(state)
    if command != kind.command:
        raise ConfigError(f"{path} is a run of {command}: go on with '{command} --resume {path}'.")
    given = check_resumable(settings)
    folder = path if path.is_dir() else path.parent
    run_config = configs.from_mapping({**state["config"], **given}, kind)
    if run_config.precision == "auto":  # of a run of before, whose answer was not kept
        run_config = replace(run_config, precision=_precision_of(folder))
    return run_config, folder, state


def check_resumable(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of `settings` that were given (are not None). Raises ConfigError for any that may not
    change in a resumed run."""
    given = {name: value for name, value in settings.items() if value is not None}
    fixed = [name for name in given if name not in RESUMABLE]
    if fixed:
        raise ConfigError(
            f"--{fixed[0].replace('_', '-')} cannot change in a resumed run: leave it out; only "
            f"{', '.join('--' + name.replace('_', '-') for name in RESUMABLE)} may."
        )
    return given


def _precision_of(folder: Path) -> str:
    """What "auto" gave in an old run, as its environment.json says; "auto" where there is none."""
    with suppress(OSError, ValueError, KeyError):
        dtype = json.loads((folder / "environment.json").read_text())["precision"]
        return NAMES[getattr(torch, dtype)]
    return "auto"


class Log:
    """Prints a line on the terminal; once the run folder exists, writes it to log.txt too."""

    def __init__(self, folder: Path | str) -> None:
        self._path = Path(folder) / "log.txt"
        self._unwritten: list[str] = []

    def __call__(self, text: str) -> None:
        write(text)
        self._unwritten.append(text)
        if self._path.parent.is_dir():
            with writing(self._path.parent), open(self._path, "a") as file:
                file.writelines(line + "\n" for line in self._unwritten)
            self._unwritten.clear()


def no_log(_: str) -> None:
    """The log of every rank but the first."""


def start(
    folder: Path, config: Config, device: torch.device, precision: torch.dtype, *, resumed: bool
) -> None:
    """Make the folder and write config.toml and environment.json (a resumed run: once more).

    Raises RunError where the folder takes no more.
    """
    versions = dict.fromkeys(PACKAGES, "not installed")
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    environment = {
        "versions": versions,
        "python": platform.python_version(),
        "device": device_name(device),
        "precision": str(precision).removeprefix("torch."),
        "commit": _commit(),
        "command": sys.argv,
        "resumed": resumed,
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.toml", config.to_toml().encode())
        write_json(folder / "environment.json", environment)


class RunError(HarError):
    """The run folder cannot be written to; one sentence."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise RunError where the block cannot write to the run folder."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"the run folder {folder} cannot be written to ({error.strerror or error}): free some "
            f"space, then '--resume {folder}' goes on from its last checkpoint."
        ) from error


def write_metrics(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write metrics.jsonl anew, not appended: a run that was killed and resumed repeats no line."""
    lines = "".join(json.dumps(line) + "\n" for line in history)
    write_atomically(folder / "metrics.jsonl", lines.encode())


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def _commit() -> str | None:
    """The commit of this project's checkout; None where it was installed from elsewhere."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
