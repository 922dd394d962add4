"""`har-reproduce`: the whole paper on real UCF101, step by step: shards, runs, evaluation, report.

A step is a command of this project and a file that is there when it is done; a step that is done is
skipped, and a run that was stopped goes on from its last checkpoint. So the same command can be
stopped and given again at any time, and the state is nothing but the files.

Odd: the order is by what a reader wants first. A stage is all four models with one preset, split
and seed, and ends with its report: stopping after the first stage already gives Table 1. What all
of it will cost is said at the start, from a few steps timed on this machine (`har.training.paper.timing`).
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

from ...errors import HarError
from ..config import Config
from ..plots import DISPLAY_NAMES

MODELS = tuple(DISPLAY_NAMES)  # R3D first: missing weights then show within minutes


class ReproduceError(HarError):
    """Something that cannot be reproduced as asked; one sentence with the way out."""


@dataclass(frozen=True)
class Wanted:
    """What to reproduce and where. weights: of r3d. extra: options of har-train, for every run."""

    videos: Path
    shards: Path = Path("data/shards")
    runs: Path = Path("runs/paper")
    reports: Path = Path("reports/paper")
    presets: tuple[str, ...] = ("paper", "modern")
    splits: tuple[str, ...] = ("paper", "official-1")
    models: tuple[str, ...] = MODELS
    seeds: int = 3
    weights: str | None = None
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ReproduceError(f"--seeds {self.seeds} does not work: give 1 or more.")
        own = {
            "--model",
            "--split",
            "--seed",
            "--preset",
            "--shards",
            "--out",
            "--resume",
            "--weights",
        }
        taken = sorted(own & {word.split("=")[0] for word in self.extra})
        if taken:
            raise ReproduceError(
                f"{taken[0]} is chosen by har-reproduce itself: leave it out after the --."
            )


@dataclass(frozen=True)
class Run:
    """One run of the plan. folder: where it is trained; config: as har-train will resolve it."""

    folder: Path
    config: Config

    @property
    def trained(self) -> bool:
        return (self.folder / "summary.json").is_file()

    @property
    def finished(self) -> bool:
        return self.trained and (self.folder / "eval.json").is_file()


@dataclass(frozen=True)
class Stage:
    """One preset, split and seed: a run of each model, and the report that they end with."""

    name: str
    report: Path
    runs: tuple[Run, ...]


def plan(wanted: Wanted) -> list[Stage]:
    """All stages, in order. Raises the one-sentence errors of the options in `extra`."""
    stages = []
    for preset, seed, split in product(wanted.presets, range(wanted.seeds), wanted.splits):
        place = Path(preset) / split
        runs = tuple(
            Run(
                wanted.runs / place / f"{model}-{seed}",
                _config(_options(wanted, preset, split, model, seed)),
            )
            for model in wanted.models
        )
        stages.append(Stage(f"{preset}, {split}, seed {seed}", wanted.reports / place, runs))
    return stages


def run(wanted: Wanted, *, dry: bool = False) -> int:
    """Say what it costs, then do what is not done yet; -> the exit code. dry: only say.

    130 after Ctrl-C, that of the command where a step fails.
    """
    stages = plan(wanted)
    built = (wanted.shards / "manifest.json").is_file()
    if not built and not wanted.videos.is_dir():
        return _call("har-shards", "build", wanted.videos, "--out", wanted.shards)  # says why not
    from . import plan as estimate

    print(estimate.lines(wanted, stages), flush=True)
    if dry:
        return 0
    _check_weights(stages)
    try:
        with _alone(wanted.runs):
            return _do(wanted, stages)
    except KeyboardInterrupt:
        print("\nstopped; what is done is kept: the same command goes on here.", file=sys.stderr)
        return 130


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of the runs: two at once would each take the other's runs for stopped ones.

    Raises ReproduceError where another holds it. The lock ends with the process, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ReproduceError(
                f"another har-reproduce is at work in {folder}: wait for it, or give other --runs."
            ) from error
        yield


def _do(wanted: Wanted, stages: Sequence[Stage]) -> int:
    if not (wanted.shards / "manifest.json").is_file():
        code = _call("har-shards", "build", wanted.videos, "--out", wanted.shards)
        if code:
            return code
    for number, stage in enumerate(stages, 1):
        print(f"\nstage {number} of {len(stages)}: {stage.name}", flush=True)
        for one in stage.runs:
            code = _train_and_evaluate(wanted, one)
            if code:
                print(f"{one.folder} failed: mend it and give the same command.", file=sys.stderr)
                return code
        code = _report(stage)
        if code:
            return code
    print("\nall done; the reports:", *sorted({str(s.report) for s in stages}), sep="\n  ")
    return 0


def _train_and_evaluate(wanted: Wanted, one: Run) -> int:
    """Train (or go on training) and evaluate one run, where that is not done."""
    if one.finished:
        print(f"{one.folder} is done.", flush=True)
        return 0
    if not one.trained:
        code = _call("har-train", *_training(wanted, one))
        # 1: the loss became nan or infinite; such a run is kept, named and left out of the report
        if code and not (code == 1 and one.trained):
            return code
    if not (one.folder / "best.pt").is_file():
        print(f"{one.folder} has no checkpoint and is left out of the report.", file=sys.stderr)
        return 0
    return _call("har-eval", one.folder)


def _training(wanted: Wanted, one: Run) -> list[str | Path]:
    if (one.folder / "last.pt").is_file():
        return ["--resume", one.folder]
    if one.folder.is_dir():  # killed before its first save: nothing to go on from
        aside = next(
            p
            for n in count(1)
            if not (p := one.folder.with_name(f"{one.folder.name}-stopped-{n}")).exists()
        )
        one.folder.rename(aside)
    config = one.config
    options = _options(wanted, config.preset, config.split, config.model, config.seed)
    return [*options, "--out", one.folder]


def _report(stage: Stage) -> int:
    """The report of all seeds of this preset and split so far, unless it is newer than they."""
    folders = sorted(path.parent for path in stage.runs[0].folder.parent.glob("*/eval.json"))
    page = stage.report / "report.html"
    newest = max(((folder / "eval.json").stat().st_mtime for folder in folders), default=None)
    if newest is None or (page.is_file() and page.stat().st_mtime >= newest):
        return 0
    return _call("har-report", *folders, "-o", stage.report, "--cards")


def _options(wanted: Wanted, preset: str, split: str, model: str, seed: int) -> list[str]:
    given: dict[str, object]
    given = {"preset": preset, "model": model, "split": split, "seed": seed}
    if model == "r3d" and wanted.weights:
        given["weights"] = wanted.weights
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return [*options, "--shards", str(wanted.shards), *wanted.extra]


def _config(options: Sequence[str]) -> Config:
    """What har-train would make of these options; its own errors."""
    import click

    from .. import config
    from ..cli.train import train_main

    try:
        given = dict(train_main.make_context("har-train", list(options)).params)
    except click.UsageError as error:
        raise ReproduceError(f"after the -- stand options of har-train: {error.message}") from error
    return config.make({k: v for k, v in given.items() if k not in ("file", "out", "resume")})


def _check_weights(stages: Sequence[Stage]) -> None:
    """Before days of work: can the pretrained weights be had? Raises models.WeightsError."""
    from ... import models

    for stage in stages:
        for one in stage.runs:
            config = one.config.resolve()
            if not one.trained and config.weights != "none":
                models.build(config.model, 2, weights=config.weights, **config.options)
                return  # all runs start from the same file


def _call(command: str, *words: str | Path) -> int:
    """Run one of our commands in its own process; Ctrl-C reaches it too, and it saves."""
    beside = Path(sys.executable).with_name(command)
    program = str(beside) if beside.exists() else command
    print("$", command, *words, flush=True)
    child = subprocess.Popen([program, *map(str, words)])
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.wait()
        raise
    if code in (130, -2):
        raise KeyboardInterrupt
    return code
