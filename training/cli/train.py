"""The command har-train.

Its options are made from the fields of `har.training.config.Config`, so that no default stands
twice. torch is imported inside the command's body only: --help answers at once.
"""

import contextlib
import functools
import sys
from collections.abc import Container, Iterator
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
@click.option(
    "--resume", type=click.Path(path_type=Path),
    help="Go on with this run folder, or with its best.pt in the new folder --out.",
)  # fmt: skip
@click.option(
    "--folds", type=click.IntRange(min=2),
    help="Train the folds fold-1/K to fold-K/K one after another, into OUT/fold-1 to OUT/fold-K.",
)  # fmt: skip
@one_sentence
def train_main(
    file: Path | None, out: Path | None, resume: Path | None, folds: int | None, **settings: Any
) -> None:
    """Train one of the four models, or one of your own, on a shard set.

    Example: har-train --model convlstm --frames 16
    """
    from .. import api

    with exit_codes():
        if resume is None:
            run = api.train(config=file, out=out, folds=folds, **settings)
        elif file is None and folds is None and (out is None or not resume.is_dir()):
            run = api.resume(resume, out=out, **settings)
        else:
            raise ConfigError(
                "--resume goes on in its own folder: leave out --out, --config and --folds; only a "
                "checkpoint, RUN/best.pt, goes on in a new one with --out."
            )
    if not run.finite:
        sys.exit(1)


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """A training that a signal stops exits by the custom of shells: 128 + its number."""
    from ..runtime.signals import Interrupted

    try:
        yield
    except Interrupted as interrupt:
        sys.exit(128 + interrupt.number)
    except KeyboardInterrupt:
        click.echo("\nstopped: nothing was trained yet.", err=True)
        sys.exit(130)
