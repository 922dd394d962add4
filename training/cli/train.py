"""The command har-train.

Its options are made from the fields of `har.training.config.Config`, so that no default stands
twice. torch is imported inside the command's body only: --help answers at once.
"""

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from ...errors import Command, one_sentence
from ..config import CHOICES, Config, ConfigError


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


def config_options(command: Command) -> Command:
    """One click option for each field of Config, in the order of the dataclass.

    Their click default is None, for "not given": presets and --config files lie between the
    defaults and the options given.
    """
    hints = get_type_hints(Config)
    for field in reversed(fields(Config)):
        option_type: Any = (get_args(hints[field.name]) or (hints[field.name],))[0]
        if field.name in CHOICES:
            option_type = click.Choice(CHOICES[field.name])
        if "auto" in field.metadata:
            option_type = NumberOrAuto(field.metadata["auto"])
        flag = option_type is bool
        name = field.name.replace("_", "-")
        declaration = f"--{name}/--no-{name}" if flag else f"--{name}"
        text = field.metadata["help"]
        if field.default not in (None, ""):
            text += f" [{str(field.default).lower() if flag else field.default}]"
        command = click.option(declaration, type=option_type, default=None, help=text)(command)
    return command


@click.command()
@config_options
@click.option("--config", "file", type=click.Path(path_type=Path), help="Settings as a TOML file.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder. [runs/MODEL, -2, -3 ...]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder.")
@one_sentence
def train_main(file: Path | None, out: Path | None, resume: Path | None, **settings: Any) -> None:
    """Train one of the four models on a shard set.

    Example: har-train --model convlstm --frames 16
    """
    from .. import config, loop
    from ..runtime import run_dir, signals

    state = None
    if resume is not None:
        if out is not None or file is not None:
            raise ConfigError("--resume goes on in its own folder: leave out --out and --config.")
        run_config, folder, state = run_dir.load_resumed(resume, settings)
    else:
        run_config = config.make(settings, file)
        folder = run_dir.choose_folder(out, run_config.model)
    is_main_process = os.environ.get("RANK", "0") == "0"  # of the ranks of torchrun
    log = run_dir.Log(folder) if is_main_process else run_dir.no_log
    try:
        summary = loop.fit(run_config, folder, log, state)
    except (ValueError, KeyboardInterrupt) as error:
        if resume is None and is_main_process:
            run_dir.remove_untrained(folder)
        if isinstance(error, ValueError):
            raise
        click.echo("\nstopped: nothing was trained yet.", err=True)  # later it is Interrupted
        sys.exit(130)
    except signals.Interrupted as interrupt:
        log(f"stopped: {interrupt}, saved in {folder / 'last.pt'}")
        log(f"next: har-train --resume {folder}")
        sys.exit(128 + interrupt.number)
    log(f"stopped: {summary['stop_reason']}")
    if not summary["finite"]:
        hint = f"; har-eval {folder} looks at epoch {summary['best_epoch']}"
        log(f"next: train anew with that changed{hint if summary['best_epoch'] else ''}")
        sys.exit(1)
    log(f"best epoch {summary['best_epoch']}, validation accuracy {summary['best_val_acc']:.4f}")
    log(f"next: har-eval {folder}")
