"""Train a run and go on with one: what har-train and Python share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from inspect import Parameter, signature
from pathlib import Path
from shlex import quote
from typing import Any

from ... import models
from ...progress import silence, write
from .. import config as configs
from .. import loop
from ..config import Config
from ..folds import LIMITS, list_jobs, plan_folds
from ..prediction import Prediction
from ..runtime import fold_dir, run_dir
from ..runtime.distributed import init_distributed
from ..runtime.signals import Interrupted
from ..state import Log, Task
from ..step import CLASSIFICATION
from ..values import check_names
from .arguments import check_options, check_path
from .run import Run, load_run

OnEpoch = Callable[["Run"], None]


def _with_settings(function: Callable[..., Run]) -> Callable[..., Run]:
    """Let `help` and completion show the fields of Config instead of **settings."""
    shown = signature(function)
    own = [p for p in shown.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    settings = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Config)
    ]
    function.__signature__ = shown.replace(parameters=own + settings)  # type: ignore[attr-defined]
    return function


@_with_settings
def train(
    *,
    config: Path | str | None = None,
    out: Path | str | None = None,
    folds: int | None = None,
    on_epoch: OnEpoch | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Train a model on a shard set, as `har-train` does; -> the run.

    settings: the fields of `har.training.config.Config`, which are the options of `har-train`;
    `model_options` may be a dict, `shards` an open shard set. config: more settings, a TOML file.
    out: the run folder, new or empty; by default runs/MODEL, -2, -3 ... folds: train fold-1/K to
    fold-K/K into OUT/fold-1 to OUT/fold-K. on_epoch: called with the run after each epoch, e.g. to
    draw it. quiet: print nothing; log.txt has it all.

    A run whose loss became nan or infinite comes back as others do: `run.finite` is False. Ctrl-C
    (a notebook's stop button) saves after the step under way and raises `Interrupted`, which is a
    KeyboardInterrupt. Raises HarError, one sentence: for wrong settings before anything is
    written; for a full disk or memory later, too.
    """
    options = {"config": config, "out": out, "folds": folds, "on_epoch": on_epoch, "quiet": quiet}
    _check_call(train, options, settings)
    run_config = configs.make(settings, None if config is None else check_path("config", config))
    if settings.get("model") is not None:
        models.allow(run_config.model)
    folder = run_dir.choose_folder(
        None if out is None else check_path("out", out), run_config.model
    )
    with silence(quiet):
        if folds is not None:
            return _train_folds(plan_folds(run_config, folder, folds), {}, on_epoch, is_new=True)
        return _train(run_config, folder, None, on_epoch)


def resume(
    run: Run | Path | str,
    *,
    out: Path | str | None = None,
    on_epoch: OnEpoch | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Go on with a run that was stopped, or train it longer (`epochs=100`); -> the run.

    As `har-train --resume` does. run: a run, its folder, or the last.pt in it; its best.pt goes on
    in the new folder `out`. settings: those that may change in a resumed run. on_epoch, quiet: see
    `train`. Raises HarError.
    """
    _check_call(resume, {"out": out, "on_epoch": on_epoch, "quiet": quiet}, settings)
    folder = run.path if isinstance(run, Run) else check_path("run", run)
    with silence(quiet):
        if fold_dir.is_fold_dir(folder):
            given = run_dir.check_resumable(settings)
            return _train_folds(fold_dir.load_fold_dir(folder, given), settings, on_epoch)
        new = None if out is None else check_path("out", out)
        run_config, folder, state = run_dir.load_resumed(folder, settings, out=new)
        return _train(run_config, folder, state, on_epoch)


def predict(
    run: Run | Path | str, videos: Path | str | Iterable[Path | str], **options: Any
) -> Prediction:
    """The answers of a run's best checkpoint to videos: see `Run.predict`."""
    return load_run(run).predict(videos, **options)


def _check_call(function: Callable[..., Run], options: dict[str, Any], settings: Any) -> None:
    """Names and types of a call; `make` looks at what the settings are."""
    known = [*options, *(field.name for field in fields(Config))]
    check_names(settings, known, "option")
    check_options(function, options)


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"  # of the ranks of torchrun


def _train_folds(
    plan: fold_dir.FoldDir,
    settings: dict[str, Any],
    on_epoch: OnEpoch | None,
    *,
    is_new: bool = False,
) -> Run:
    """Train the folds of `plan` that are left to train (`list_jobs`)."""
    log = write if is_main_process() else run_dir.no_log
    diverged = []
    is_changed = any(settings.get(name) is not None for name in LIMITS)
    with init_distributed(plan.config.device, plan.config.rank_timeout) as ctx:
        ctx.broadcast(None)  # every rank has found the folder free
        with run_dir.claimed(plan.folder, ctx, is_new=is_new):
            if (is_new or is_changed) and ctx.is_main_process:
                plan.save()
            try:
                for job in list_jobs(plan, settings):
                    log(f"fold {job.fold} of {plan.num_folds}, {job.folder}")
                    if ctx.is_main_process and job.state is None:
                        run_dir.remove_untrained(job.folder)
                    if not _train(job.config, job.folder, job.state, on_epoch, plan.folder).finite:
                        diverged.append(str(job.fold))
            finally:
                if ctx.is_main_process:
                    plan.remove_untrained()
    log(f"all {plan.num_folds} folds are trained; next: har-eval {quote(str(plan.folder))}")
    if diverged:
        log(f"the loss of fold {', '.join(diverged)} became nan or infinite.")
    return Run(plan.folder, finite=not diverged)


def _train(
    run_config: Config,
    folder: Path,
    state: dict[str, Any] | None,
    on_epoch: OnEpoch | None,
    resume_folder: Path | None = None,
) -> Run:
    """Train one run, from `state` if it is resumed. resume_folder: what `--resume` names after a
    stop."""
    log = run_dir.Log(folder) if is_main_process() else run_dir.no_log
    callback = None if on_epoch is None else lambda: on_epoch(Run(folder))
    summary = fit_or_stop(run_config, folder, log, state, resume_folder or folder, callback)
    if not summary["finite"]:
        hint = f"; har-eval {quote(str(folder))} looks at epoch {summary['best_epoch']}"
        log(f"next: train anew with that changed{hint if summary['best_epoch'] else ''}")
        return Run(folder, finite=False)
    accuracy = summary["best_val_acc"]
    reason = "the last, no val clips" if accuracy is None else f"validation accuracy {accuracy:.4f}"
    log(f"best epoch {summary['best_epoch']}, {reason}")
    if resume_folder is None:
        log(_next_step(folder, summary["split"]["clips"]))
    return Run(folder, finite=True)


def fit_or_stop(
    run_config: Config,
    folder: Path,
    log: Log,
    state: dict[str, Any] | None,
    resume_folder: Path,
    on_epoch: Callable[[], None] | None = None,
    task: Task = CLASSIFICATION,
) -> dict[str, Any]:
    """Train one run to its end, said in the log; -> its summary. See `loop.fit`.

    What fails before anything is trained leaves no folder.
    """
    try:
        summary = loop.fit(run_config, folder, log, state, task, on_epoch)
    except Interrupted as interrupt:
        log(f"stopped: {interrupt}, saved in {folder / 'last.pt'}")
        log(f"next: {run_config.command} --resume {quote(str(resume_folder))}")
        interrupt.add_note(f"saved: har.resume({str(resume_folder)!r}) goes on")
        raise
    except (ValueError, KeyboardInterrupt):
        if state is None and is_main_process():
            run_dir.remove_untrained(folder)
        raise
    log(f"stopped: {summary['stop_reason']}")
    return summary


def _next_step(folder: Path, clips: dict[str, int]) -> str:
    """clips: how many each subset of the run's split has."""
    run = quote(str(folder))
    if clips["test"]:
        return f"next: har-eval {run}"
    if clips["val"]:
        return f"next: har-eval {run} --subset val"
    return f"next: har-predict {run} VIDEO, as the split leaves no clip to evaluate on"
