"""What `har-reproduce` has to do: stages of training runs, each with its configuration and folder.

The state is nothing but files: a run is trained when its summary.json is there, and evaluated when
an eval.json is. A stage is all four models with one preset, split and seed, and ends with its
report, so the first stage already gives Table 1.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from ...errors import HarError
from .. import config as configs
from ..config import Config
from ..evaluation import list_evaluations
from ..plots import DISPLAY_NAMES

MODELS = tuple(DISPLAY_NAMES)  # R3D first: missing weights then show within minutes
_OWN_SETTINGS = ("preset", "model", "split", "seed", "shards", "weights", "out", "resume", "folds")


class ReproduceError(HarError):
    """Something that cannot be reproduced as asked; one sentence with the way out."""


@dataclass(frozen=True)
class ReproduceOptions:
    """What to reproduce and where.

    weights: of r3d. train_settings: fields of `Config` for every run; train_config: a TOML file of
    such fields. Raises ReproduceError.
    """

    videos: Path
    shards: Path = Path("data/shards")
    runs: Path = Path("runs/paper")
    reports: Path = Path("reports/paper")
    presets: tuple[str, ...] = ("paper", "modern")
    splits: tuple[str, ...] = ("paper", "official-1")
    models: tuple[str, ...] = MODELS
    seeds: int = 3
    weights: str | None = None
    train_settings: Mapping[str, Any] = field(default_factory=dict)
    train_config: Path | None = None

    def __post_init__(self) -> None:
        for name in _OWN_SETTINGS:
            if name in self.train_settings:
                raise ReproduceError(
                    f"--{name} is chosen by har-reproduce itself: leave it out after the --."
                )

    @property
    def shards_exist(self) -> bool:
        return (self.shards / "manifest.json").is_file()


@dataclass(frozen=True)
class RunPlan:
    """One training run. options: of har-train, beside --out; config: what they resolve to."""

    folder: Path
    options: tuple[str, ...]
    config: Config

    @property
    def is_trained(self) -> bool:
        return (self.folder / "summary.json").is_file()

    @property
    def is_evaluated(self) -> bool:
        return self.is_trained and bool(list_evaluations(self.folder))

    @property
    def subset(self) -> str | None:
        """What the trained run can be evaluated on: test, else val; None where it has neither."""
        split = json.loads((self.folder / "summary.json").read_text())["split"]
        clips = split.get("clips", {"test": 1})  # runs of earlier versions all had test clips
        return next((name for name in ("test", "val") if clips.get(name)), None)


@dataclass(frozen=True)
class Stage:
    """One preset, split and seed: a run of each model, and the folder of their report."""

    name: str
    report: Path
    runs: tuple[RunPlan, ...]


def plan_stages(options: ReproduceOptions) -> list[Stage]:
    """All stages, in order. Raises ConfigError for wrong `train_settings`."""
    return [
        Stage(
            f"{preset}, {split}, seed {seed}",
            options.reports / preset / split,
            tuple(_plan_run(options, preset, split, model, seed) for model in options.models),
        )
        for preset, seed, split in product(options.presets, range(options.seeds), options.splits)
    ]


def _plan_run(options: ReproduceOptions, preset: str, split: str, model: str, seed: int) -> RunPlan:
    settings: dict[str, Any] = {"preset": preset, "model": model, "split": split, "seed": seed}
    if model == "r3d" and options.weights is not None:
        settings["weights"] = options.weights
    settings |= {"shards": str(options.shards), **options.train_settings}
    words = [word for name, value in settings.items() for word in _option(name, value)]
    if options.train_config is not None:
        words += ["--config", str(options.train_config)]
    folder = options.runs / preset / split / f"{model}-{seed}"
    return RunPlan(folder, tuple(words), configs.make(settings, options.train_config))


def _option(name: str, value: Any) -> list[str]:
    """A field of `Config` as an option of har-train."""
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]
