"""The folder of a K-fold training: RUN/fold-1 ... RUN/fold-K, each a run folder, and folds.json.

folds.json holds K and the settings that all folds share. A fold is finished when its summary.json
is there.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import HarError
from ..config import Config, from_mapping
from . import run_dir

FOLDS_NAME = "folds.json"


class FoldError(HarError):
    """A folder of folds that cannot be used; one sentence with the way out."""


@dataclass(frozen=True)
class FoldDir:
    """The folder, the number of folds and what they share; `config.split` is not used."""

    folder: Path
    num_folds: int
    config: Config

    def fold_folder(self, fold: int) -> Path:
        """fold: from 1."""
        return self.folder / f"fold-{fold}"

    def is_finished(self, fold: int) -> bool:
        return (self.fold_folder(fold) / "summary.json").is_file()

    @property
    def finished_folders(self) -> list[Path]:
        folds = range(1, self.num_folds + 1)
        return [self.fold_folder(fold) for fold in folds if self.is_finished(fold)]

    def save(self) -> None:
        with run_dir.writing(self.folder):
            content = {
                "folds": self.num_folds,
                "config": asdict(self.config),
                "shards_paths": run_dir.locate_shards(self.config.shards, self.folder),
            }
            run_dir.write_json(self.folder / FOLDS_NAME, content)

    def remove_untrained(self) -> None:
        """Remove the folder where nothing was trained, so that the same command works again."""
        if self.folder.is_dir() and [p.name for p in self.folder.iterdir()] == [FOLDS_NAME]:
            shutil.rmtree(self.folder, ignore_errors=True)


def is_fold_dir(folder: Path) -> bool:
    return (folder / FOLDS_NAME).is_file()


def load_fold_dir(folder: Path, settings: dict[str, Any] | None = None) -> FoldDir:
    """settings: what the folds that are not finished get instead, where they are to be trained.

    Raises FoldError, ConfigError, and RunError where the shards are gone.
    """
    path = folder / FOLDS_NAME
    try:
        content = json.loads(path.read_text())
        num_folds, config = int(content["folds"]), dict(content["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FoldError(f"{path} cannot be read ({error}): train the folds again.") from error
    if settings is not None:
        shards = settings.get("shards")
        if shards is None:
            paths = content.get("shards_paths", {})
            shards = run_dir.find_shards(config["shards"], folder, paths)
        config |= {"shards": shards, **settings}
    return FoldDir(folder, num_folds, from_mapping(config))


def list_run_folders(folder: Path) -> list[Path]:
    """The finished runs of a folder of folds, but for those whose loss was never finite, which have
    no checkpoint; any other folder stands for itself.

    Raises FoldError where there is none.
    """
    if not is_fold_dir(folder):
        return [folder]
    command = f"har-train --resume {folder}"
    folders = [
        run
        for run in load_fold_dir(folder).finished_folders
        if run_dir.read_file(run / "summary.json", command, "best_epoch")["best_epoch"]
    ]
    if not folders:
        raise FoldError(
            f"no fold of {folder} is finished: 'har-train --resume {folder}' goes on with them."
        )
    return folders
