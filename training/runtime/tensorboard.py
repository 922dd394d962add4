"""TensorBoard's events of a run (`--tensorboard`): every number of metrics.jsonl, by epoch.

A session writes the run's whole history into one new file and removes the older ones. So an epoch
stands there once however often the run was killed and resumed; TensorBoard finds the new file by
itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import ConfigError


def check_installed() -> None:
    """Raise ConfigError where the package is missing."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs the package tensorboard, which is not installed: "
            "pip install 'har-ucf101[tensorboard]', or leave the option out."
        ) from error


class TensorBoardWriter:
    """Writes the event file of one run folder. history: the lines of the epochs before."""

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        old_files = sorted(folder.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(str(folder))
        for line in history:
            self._add_scalars(line)
        self._writer.flush()
        for path in old_files:
            path.unlink()

    def add(self, line: Mapping[str, Any]) -> None:
        """One epoch's line; on the disk when this returns."""
        self._add_scalars(line)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add_scalars(self, line: Mapping[str, Any]) -> None:
        for name, value in line.items():
            if name != "epoch" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, line["epoch"])
