"""`har-train --folds K`: the runs of the splits fold-1/K ... fold-K/K, one after another.

What is finished is skipped and what was stopped goes on: `--resume` may be given at any time. With
another `--epochs` (or another limit) finished folds go on, too, as a single run does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..shards.format import load_manifest
from .config import AUTO, Config, ConfigError, load, make
from .network import build_model, check_pretraining, model_options
from .runtime import run_dir
from .runtime.fold_dir import FoldDir
from .setup import make_split

LIMITS = ("epochs", "max_minutes", "patience")  # settings by which a training ends


@dataclass(frozen=True)
class FoldJob:
    """A fold that is to be trained. state: of its last.pt to go on from; None for a new run."""

    fold: int
    folder: Path
    config: Config
    state: dict[str, Any] | None


def plan_folds(config: Config, folder: Path, num_folds: int) -> FoldDir:
    """The folds of a new training, every split of them made once and compared with what
    `--weights` were pretrained on, before anything is written.

    Raises ConfigError and SplitError where a fold cannot be trained.
    """
    if config.split != "grouped":
        raise ConfigError(
            f"--folds {num_folds} cuts the set into fold-1/{num_folds} to "
            f"fold-{num_folds}/{num_folds}: leave out --split {config.split}."
        )
    fold_dir = FoldDir(folder, num_folds, config)
    manifest, config = load_manifest(config.shards), config.resolve()
    model = build_model(config, model_options(config), len(manifest.classes))
    for fold in range(1, num_folds + 1):
        split = make_split(_fold_config(fold_dir, fold), manifest)
        check_pretraining(config, model, manifest, split)
    return fold_dir


def list_jobs(fold_dir: FoldDir, settings: dict[str, Any]) -> Iterator[FoldJob]:
    """The folds that are left to train, in order, each looked at when its turn comes.

    settings: of the command line, for folds that go on (`run_dir.load_resumed`).
    """
    limits = {name: getattr(fold_dir.config, name) for name in LIMITS}
    for fold in range(1, fold_dir.num_folds + 1):
        folder = fold_dir.fold_folder(fold)
        has_checkpoint = any(folder.glob("*.pt"))
        if fold_dir.is_finished(fold):
            trained = load(folder / "config.toml")
            is_same = all(getattr(trained, name) == value for name, value in limits.items())
            if is_same or not has_checkpoint:  # none where its loss was never finite
                continue
        if has_checkpoint:
            config, _, state = run_dir.load_resumed(folder, {**settings, **limits})
            yield FoldJob(fold, folder, config, state)
        else:
            yield FoldJob(fold, folder, _fold_config(fold_dir, fold), None)


def _fold_config(fold_dir: FoldDir, fold: int) -> Config:
    """The settings of a fold; what `--batch-size auto` found for an earlier one holds for all."""
    config = replace(fold_dir.config, split=f"fold-{fold}/{fold_dir.num_folds}")
    if config.batch_size == AUTO and fold_dir.finished_folders:
        first = make({}, fold_dir.finished_folders[0] / "config.toml")
        config = replace(config, batch_size=first.batch_size)
    return config
