"""`har-reproduce`: the whole paper on real UCF101: shards, training runs, evaluation, reports.

A step is a command of this project and a file that is there when it is done. What is done is
skipped, and a run that was stopped continues from its last checkpoint, so the same command can be
stopped and given again at any time. What it costs is printed first (`estimate`).
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ... import models
from ...pipeline.dataset import list_folder
from ...shards.storage import try_lock
from ..evaluation import list_evaluations
from . import estimate
from .plan import ReproduceError, ReproduceOptions, RunPlan, Stage, plan_stages


def reproduce_paper(options: ReproduceOptions, *, dry_run: bool = False) -> int:
    """Print what it costs, then do what is not done yet; -> the exit code.

    That is 130 after Ctrl-C, that of the command where a step fails. dry_run: only print.
    """
    stages = plan_stages(options)
    if not options.shards_exist and not list_folder(options.videos)[0]:
        return _build_shards(options)  # its error says where UCF101 comes from
    print(estimate.describe_costs(options, stages), flush=True)
    if dry_run:
        return 0
    _check_weights(stages)
    try:
        with _locked(options.runs):
            return _run_stages(options, stages)
    except KeyboardInterrupt:
        print("\nstopped; what is done is kept: the same command goes on here.", file=sys.stderr)
        return 130


def _check_weights(stages: Sequence[Stage]) -> None:
    """Before days of work: can the pretrained weights be had? Raises models.WeightsError."""
    for run in (run for stage in stages for run in stage.runs if not run.is_trained):
        config = run.config.resolve()
        if config.weights != "none":
            models.build(config.model, 2, weights=config.weights, **config.options)
            return  # all runs start from the same file


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder of the runs: two processes would take each other's runs for stopped ones.

    Raises ReproduceError where another holds it. The lock ends with the process, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        if not try_lock(file.fileno()):
            raise ReproduceError(
                f"another har-reproduce is at work in {folder}: wait for it, or give other --runs."
            )
        yield


def _run_stages(options: ReproduceOptions, stages: Sequence[Stage]) -> int:
    if not options.shards_exist and (code := _build_shards(options)):
        return code
    for number, stage in enumerate(stages, 1):
        print(f"\nstage {number} of {len(stages)}: {stage.name}", flush=True)
        for run in stage.runs:
            if code := _train_and_evaluate(run):
                print(f"{run.folder} failed: fix it and give the same command.", file=sys.stderr)
                return code
        if code := _write_report(stage):
            return code
    print("\nall done; the reports:", *sorted({str(s.report) for s in stages}), sep="\n  ")
    return 0


def _build_shards(options: ReproduceOptions) -> int:
    return call_command("har-shards", "build", options.videos, "--out", options.shards)


def _train_and_evaluate(run: RunPlan) -> int:
    """Train (or resume) and evaluate one run, where that is not done; -> the exit code."""
    if run.is_evaluated:
        print(f"{run.folder} is done.", flush=True)
        return 0
    if not run.is_trained:
        code = _train(run)
        # 1: the loss became nan or infinite; such a run is kept, named and left out of the report
        if code and not (code == 1 and run.is_trained):
            return code
    if not (run.folder / "best.pt").is_file():
        print(f"{run.folder} has no checkpoint and is left out of the report.", file=sys.stderr)
        return 0
    if run.subset is None:
        print(
            f"{run.folder}: its split has neither test nor val clips, so it is left out of the "
            "report.",
            file=sys.stderr,
        )
        return 0
    return call_command("har-eval", run.folder, "--subset", run.subset)


def _train(run: RunPlan) -> int:
    if (run.folder / "last.pt").is_file():
        return call_command("har-train", "--resume", run.folder)
    if run.folder.is_dir():  # killed before its first save: nothing to resume
        names = (run.folder.with_name(f"{run.folder.name}-stopped-{n}") for n in count(1))
        run.folder.rename(next(path for path in names if not path.exists()))
    return call_command("har-train", *run.options, "--out", run.folder)


def _write_report(stage: Stage) -> int:
    """The report of all seeds of this preset and split so far, unless it is newer than they."""
    folders = sorted(path for path in stage.runs[0].folder.parent.iterdir() if path.is_dir())
    evaluations = [path for folder in folders for path in list_evaluations(folder)]
    page = stage.report / "report.html"
    newest = max((path.stat().st_mtime for path in evaluations), default=0.0)
    if not evaluations or (page.is_file() and page.stat().st_mtime >= newest):
        return 0
    folders = [folder for folder in folders if list_evaluations(folder)]
    return call_command("har-report", *folders, "-o", stage.report, "--cards")


def call_command(command: str, *arguments: str | Path) -> int:
    """Run one of our commands as a child process; Ctrl-C reaches it too, and it saves."""
    program = Path(sys.executable).with_name(command)
    print("$", command, *arguments, flush=True)
    child = subprocess.Popen([program if program.exists() else command, *map(str, arguments)])
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.wait()
        raise
    if code in (130, -2):
        raise KeyboardInterrupt
    return code
