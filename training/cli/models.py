"""The commands har-models, har-doctor and har-bench-train: thin.

Odd: torch is imported inside the command bodies only: --help answers at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ...errors import one_sentence
from ..config import CHOICES, ConfigError

_OPTIONS = "Options of the model, e.g. 'width=32,dropout=0.2'."


@click.group()
def models_main() -> None:
    """The four networks: what they are made of, and the memory they take."""


@models_main.command("list")
@one_sentence
def list_command() -> None:
    """Name the four networks, with their sizes."""
    from ..inspection import model_summary

    click.echo(model_summary.overview())


@models_main.command()
@click.argument("name")
@click.option("--frames", default=16, show_default=True)
@click.option("--size", default=112, show_default=True, help="Height and width.")
@click.option("--batch-size", default=32, show_default=True)
@click.option("--precision", default="fp32", show_default=True, help="bf16 or fp32.")
@click.option("--model-options", default="", help=_OPTIONS)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it: a .png, .svg or .pdf file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def show(name: str, plot: Path | None, as_json: bool, **settings: Any) -> None:
    """Show network NAME layer by layer, and the memory a training step of it takes.

    Example: har-models show convlstm --batch-size 8 --plot convlstm.png
    """
    sheet = _sheet(name, **settings)
    from ..inspection import diagram, model_summary

    if plot is not None:
        diagram.save(sheet, plot)
    click.echo(json.dumps(sheet.to_dict(), indent=1) if as_json else model_summary.table(sheet))
    if plot is not None:
        click.echo(f"drawn: {plot}", err=as_json)


def _sheet(
    name: str, frames: int, size: int, batch_size: int, precision: str, model_options: str
) -> Any:
    from ..config import Config

    for option, value in (("frames", frames), ("size", size), ("batch-size", batch_size)):
        if value < 1:
            raise ConfigError(f"--{option} {value} does not work: give 1 or more.")
    if precision not in ("bf16", "fp32"):
        raise ConfigError(f"--precision {precision!r} is unknown: choose one of bf16, fp32.")
    options = Config(model_options=model_options).options
    import torch

    from ..inspection import model_summary

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return model_summary.examine(name, frames, (size, size), batch_size, dtype, **options)


@click.command()
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--folder", default="data", show_default=True, type=click.Path(path_type=Path), help="For data."
)
@one_sentence
def doctor_main(device: str, folder: Path) -> None:
    """Check that this machine can decode and train; exit code 1 if anything fails."""
    from ..inspection import doctor

    counts = {doctor.OK: 0, doctor.WARNING: 0, doctor.FAIL: 0}
    for line in doctor.run(device, folder):
        counts[line.status] += 1
        click.echo(str(line))
    click.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    sys.exit(1 if counts[doctor.FAIL] else 0)


@click.command()
@click.option("--model", "names", multiple=True, help="Model to time; repeatable. [all four]")
@click.option("--frames", default=16, show_default=True)
@click.option("--size", default=112, show_default=True, help="Height and width.")
@click.option("--batch-size", default=8, show_default=True)
@click.option("--steps", default=5, show_default=True, help="Timed steps a round.")
@click.option("--rounds", default=3, show_default=True, help="Rounds, interleaved over the models.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, help="auto, bf16 or fp32.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object a model.")
@one_sentence
def bench_train_main(names: tuple[str, ...], **options: Any) -> None:
    """Time a training step of each model against a plain reference loop, in one run."""
    unknown = [name for name in names if name not in (*CHOICES["model"], "all")]
    if unknown:
        raise ConfigError(
            f"--model {unknown[0]!r} is unknown: choose one of {', '.join(CHOICES['model'])}, all."
        )
    from ..benchmark import bench

    chosen = CHOICES["model"] if not names or "all" in names else names
    click.echo(bench.run(chosen, **options))
