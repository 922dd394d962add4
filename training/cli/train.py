"""The command har-train.

Its options are made from the fields of `har.training.config.Config`, so that no default stands
twice. torch is imported inside the command's body only: --help answers at once.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Container
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import click

from ...errors import Command, one_sentence
from ..config import CHOICES, Config, ConfigError

if TYPE_CHECKING:
    from ..runtime.fold_dir import FoldDir
    from ..state import Log, Task


class NumberOrAuto(click.ParamType):
    """A whole number, or "auto", which becomes the number `auto`."""

    name = "integer|auto"

    def __init__(self, auto: int) -> None:
        self._auto = auto

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "auto":
            return self._auto
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor 'auto'.", param, ctx)


def config_options(
    command: Command, kind: type[Config] = Config, left_out: Container[str] = ()
) -> Command:
    """One click option for each field of `kind` but those left out, in the order of the dataclass.

    Their click default is None, for "not given": presets and --config files lie between the
    defaults and the options given.
    """
    hints = get_type_hints(kind)
    for field in reversed([field for field in fields(kind) if field.name not in left_out]):
        option_type: Any = (get_args(hints[field.name]) or (hints[field.name],))[0]
        metavar = field.metadata.get("metavar")
        if field.name in CHOICES and metavar is None:
            option_type = click.Choice(CHOICES[field.name])
        if "auto" in field.metadata:
            option_type = NumberOrAuto(field.metadata["auto"])
        flag = option_type is bool
        name = field.name.replace("_", "-")
        declaration = f"--{name}/--no-{name}" if flag else f"--{name}"
        aliases = dict(field.metadata.get("flags", {}))  # options that stand for a value
        more: dict[str, Any] = {}
        if declaration in aliases:
            more = {
                "is_flag": False, "flag_value": aliases.pop(declaration),
                "callback": lambda ctx, option, value: ctx.meta.get(option.name, value),
            }  # fmt: skip
        text = field.metadata["help"]
        if field.default not in (None, ""):
            text += f" [{str(field.default).lower() if flag else field.default}]"
        command = click.option(
            declaration, type=option_type, default=None, help=text, metavar=metavar, **more
        )(command)
        for alias, value in aliases.items():  # of before there was "auto"
            command = click.option(
                alias, is_flag=True, is_eager=True, expose_value=False, hidden=True,
                callback=functools.partial(_set_value, field.name, value),
            )(command)  # fmt: skip
    return command


def _set_value(
    name: str, value: str, ctx: click.Context, _: click.Parameter, is_given: bool
) -> None:
    """Let an alias stand for option `name` with `value`."""
    if is_given:
        ctx.meta[name] = value


@click.command()
@config_options
@click.option("--config", "file", type=click.Path(path_type=Path), help="Settings as a TOML file.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder. [runs/MODEL, -2, -3 ...]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder.")
@click.option(
    "--folds", type=click.IntRange(min=2),
    help="Train the folds fold-1/K to fold-K/K one after another, into OUT/fold-1 to OUT/fold-K.",
)  # fmt: skip
@one_sentence
def train_main(
    file: Path | None, out: Path | None, resume: Path | None, folds: int | None, **settings: Any
) -> None:
    """Train one of the four models on a shard set.

    Example: har-train --model convlstm --frames 16
    """
    from .. import config
    from ..folds import plan_folds
    from ..runtime import fold_dir, run_dir

    state = None
    if resume is not None:
        if out is not None or file is not None or folds is not None:
            raise ConfigError(
                "--resume goes on in its own folder: leave out --out, --config and --folds."
            )
        if fold_dir.is_fold_dir(resume):
            given = run_dir.check_resumable(settings)
            _train_folds(fold_dir.load_fold_dir(resume, given), settings)
            return
        run_config, folder, state = run_dir.load_resumed(resume, settings)
    else:
        run_config = config.make(settings, file)
        folder = run_dir.choose_folder(out, run_config.model)
        if folds is not None:
            _train_folds(plan_folds(run_config, folder, folds), {}, is_new=True)
            return
    if code := _train(run_config, folder, state):
        sys.exit(code)


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"  # of the ranks of torchrun


def _train_folds(plan: FoldDir, settings: dict[str, Any], *, is_new: bool = False) -> None:
    """Train the folds of `plan` that are not finished; exit code 1 where one of them diverged."""
    from ..folds import list_jobs
    from ..runtime import run_dir
    from ..runtime.distributed import init_distributed

    say = click.echo if is_main_process() else run_dir.no_log
    diverged = []
    with init_distributed(plan.config.device, plan.config.rank_timeout) as ctx:
        ctx.broadcast(None)  # every rank has found the folder free
        if is_new and ctx.is_main_process:
            plan.save()
        try:
            for job in list_jobs(plan, settings):
                say(f"fold {job.fold} of {plan.num_folds}, {job.folder}")
                if ctx.is_main_process and job.state is None:
                    run_dir.remove_untrained(job.folder)
                if _train(job.config, job.folder, job.state, plan.folder):
                    diverged.append(str(job.fold))
        finally:
            if ctx.is_main_process:
                plan.remove_untrained()
    say(f"all {plan.num_folds} folds are trained; next: har-eval {plan.folder}")
    if diverged:
        say(f"the loss of fold {', '.join(diverged)} became nan or infinite.")
        sys.exit(1)


def _train(
    run_config: Config,
    folder: Path,
    state: dict[str, Any] | None,
    resume_folder: Path | None = None,
) -> int:
    """Train one run, from `state` if it is resumed; -> the exit code 0 or, for a loss that is not
    finite, 1. resume_folder: what `--resume` names after a stop."""
    from ..runtime import run_dir

    log = run_dir.Log(folder) if is_main_process() else run_dir.no_log
    summary = fit_or_stop(run_config, folder, log, state, resume_folder or folder)
    if not summary["finite"]:
        hint = f"; har-eval {folder} looks at epoch {summary['best_epoch']}"
        log(f"next: train anew with that changed{hint if summary['best_epoch'] else ''}")
        return 1
    accuracy = summary["best_val_acc"]
    reason = "the last, no val clips" if accuracy is None else f"validation accuracy {accuracy:.4f}"
    log(f"best epoch {summary['best_epoch']}, {reason}")
    if resume_folder is None:
        log(_next_step(folder, summary["split"]["clips"]))
    return 0


def fit_or_stop(
    run_config: Config,
    folder: Path,
    log: Log,
    state: dict[str, Any] | None,
    resume_folder: Path,
    task: Task | None = None,
) -> dict[str, Any]:
    """Train one run to its end, said in the log; -> its summary. Exits where a signal stops it.

    task: None for classification."""
    from .. import loop
    from ..runtime import run_dir, signals
    from ..step import CLASSIFICATION

    try:
        summary = loop.fit(run_config, folder, log, state, task or CLASSIFICATION)
    except (ValueError, KeyboardInterrupt) as error:
        if state is None and is_main_process():
            run_dir.remove_untrained(folder)
        if isinstance(error, ValueError):
            raise
        click.echo("\nstopped: nothing was trained yet.", err=True)  # later it is Interrupted
        sys.exit(130)
    except signals.Interrupted as interrupt:
        log(f"stopped: {interrupt}, saved in {folder / 'last.pt'}")
        log(f"next: {run_config.command} --resume {resume_folder}")
        sys.exit(128 + interrupt.number)
    log(f"stopped: {summary['stop_reason']}")
    return summary


def _next_step(folder: Path, clips: dict[str, int]) -> str:
    """clips: how many each subset of the run's split has."""
    if clips["test"]:
        return f"next: har-eval {folder}"
    if clips["val"]:
        return f"next: har-eval {folder} --subset val"
    return f"next: har-predict {folder} VIDEO, as the split leaves no clip to evaluate on"
