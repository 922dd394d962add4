"""A run's folder: where it is, what is written at its start and end. It never writes over another.

config.toml (resolved), environment.json, metrics.jsonl (one line an epoch), best.pt, last.pt,
log.txt, the curves as PNG, summary.json at the end; with --tensorboard its events.
"""

from __future__ import annotations

import json
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...atomic import write_atomically
from ...errors import HarError
from .. import config
from ..config import Config, ConfigError
from ..plots import Curves, plot_model_curves
from . import checkpoint, tensorboard

if TYPE_CHECKING:
    import torch

    from ..state import TrainState

PACKAGES = ("har-ucf101", "torch", "torchvision", "av", "webdataset", "numpy", "pillow")
_FIRST = ("config.toml", "environment.json", "log.txt")  # what a run writes before it trains


def choose_folder(out: Path | None, model: str, root: Path = Path("runs")) -> Path:
    """--out, or the first free of runs/MODEL, runs/MODEL-2, ...; a folder in use is refused."""
    if out is None:
        names = (f"{model}-{n}" if n > 1 else model for n in range(1, 10_000))
        return next(root / name for name in names if not (root / name).exists())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"the run folder {out} already exists: choose another --out; nothing was written."
        )
    return out


def forget(folder: Path) -> None:
    """Remove what a run wrote that failed before it had trained anything, so that the same command
    works again; a folder that holds more stays."""
    if folder.is_dir() and all(path.name in _FIRST for path in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)


# What may differ in a resumed run: how long, and on what machine, but not what is computed.
RESUMABLE = (
    "epochs",
    "max_minutes",
    "patience",
    "workers",
    "device",
    "save_every_minutes",
    "shards",
    "cache",
    "rank_timeout",
    "tensorboard",
)


def resume(path: Path, settings: dict[str, Any]) -> tuple[Config, Path, dict[str, Any]]:
    """-> (config, run folder, state) to go on with: the checkpoint's, changed where `settings` may.

    Raises CheckpointError or ConfigError, one sentence.
    """
    state = checkpoint.load_last(path)
    given = {name: value for name, value in settings.items() if value is not None}
    fixed = [name for name in given if name not in RESUMABLE]
    if fixed:
        raise ConfigError(
            f"--{fixed[0].replace('_', '-')} cannot change in a resumed run: leave it out; only "
            f"{', '.join('--' + name.replace('_', '-') for name in RESUMABLE)} may."
        )
    folder = path if path.is_dir() else path.parent
    return config.from_mapping({**state["config"], **given}), folder, state


class Log:
    """Says a line on the terminal; once the run folder exists, writes it to log.txt too."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log.txt"
        self._waiting: list[str] = []

    def __call__(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        self._waiting.append(text)
        if self._path.parent.is_dir():
            with _writing(self._path.parent), open(self._path, "a") as file:
                file.writelines(line + "\n" for line in self._waiting)
            self._waiting.clear()


def silent(_: str) -> None:
    """The log of every rank but the first."""


def start(trainer: TrainState, *, resumed: bool) -> None:
    """Make the folder and write config.toml and environment.json (a resumed run: once more).

    What a resumed run has of metrics, curves and events is written anew too: the run may have been
    killed after its checkpoint and before them. Raises RunError where the folder takes no more.
    """
    folder = trainer.folder
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.toml", trainer.config.to_toml().encode())
        write_atomically(folder / "environment.json", _json(_environment(trainer, resumed)))
        if trainer.config.tensorboard:
            trainer.events = tensorboard.TensorBoardWriter(folder, trainer.history)
    if trainer.history:
        record(trainer)


def _environment(trainer: TrainState, resumed: bool) -> dict[str, Any]:
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": _device_name(trainer.device),
        "precision": str(trainer.precision).removeprefix("torch."),
        "commit": _commit(),
        "command": sys.argv,
        "resumed": resumed,
    }


class RunError(HarError):
    """The run folder cannot be written to; one sentence."""


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"the run folder {folder} cannot be written to ({error.strerror or error}): free some "
            f"space, then 'har-train --resume {folder}' goes on from its last checkpoint."
        ) from error


def record(trainer: TrainState) -> None:
    """Write metrics.jsonl and the curves anew from the run's history.

    Anew, not appended: a run that was killed and resumed repeats no line and misses none.
    Raises RunError where the folder takes no more.
    """
    lines = "".join(json.dumps(line) + "\n" for line in trainer.history)
    name = trainer.config.model
    curves = Curves.from_metrics(name, name, trainer.history, trainer.best.epoch)
    with _writing(trainer.folder):
        write_atomically(trainer.folder / "metrics.jsonl", lines.encode())
        for quantity in ("loss", "acc"):
            plot_model_curves(trainer.folder / f"{quantity}.png", [curves], quantity)


def finish(trainer: TrainState, reason: str, *, finite: bool) -> dict[str, Any]:
    """Write summary.json and -> what it holds. finite: no epoch's loss was nan or infinite."""
    summary = {
        "model": trainer.config.model,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "stop_reason": reason,
        "finite": finite,
        "epochs": len(trainer.history),
        "best_epoch": trainer.best.epoch,
        "best_val_acc": trainer.best.val_acc,
        "seconds": trainer.position.seconds,
        "split": trainer.split.describe(),
        "manifest_digest": trainer.manifest.digest,
        "classes": list(trainer.manifest.classes),
    }
    if trainer.ranks.speaks:
        with _writing(trainer.folder):
            write_atomically(trainer.folder / "summary.json", _json(summary))
    return summary


def peak_bytes(device: torch.device) -> int:
    """Most memory used so far: of the device's allocator, or of this process on the CPU.

    VmHWM where there is a /proc: Linux hands ru_maxrss on through fork and exec, so that a small
    process started by a large one reports the large one's peak.
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _device_name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu ({platform.machine()}, {threads} thread{'' if threads == 1 else 's'})"


def _commit() -> str | None:
    """The commit of this project's checkout; None where it was installed from elsewhere."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
