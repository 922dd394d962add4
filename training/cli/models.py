"""The commands har-models, har-doctor and har-bench-train.

Their bodies are imported when they are called, so that --help answers at once.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click

from ...errors import one_sentence
from ..config import CHOICES, MODEL_NAMES, Config

_COUNT = click.IntRange(min=1)
_PATH = click.Path(path_type=Path)
_device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, xpu or mps."
)
_frames_option = click.option("--frames", type=_COUNT, default=16, show_default=True)
_size_option = click.option(
    "--size", type=_COUNT, default=112, show_default=True, help="Height and width."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def models_main() -> None:
    """The four networks and your own: what they are made of, and the memory they take."""


@models_main.command("list")
@one_sentence
def list_command() -> None:
    """Name the four networks, with their sizes, and those of installed packages."""
    from ..inspection import model_summary

    click.echo(model_summary.overview())


@models_main.command()
@click.argument("name")
@_frames_option
@_size_option
@click.option("--batch-size", type=_COUNT, default=32, show_default=True)
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True
)
@click.option("--model-options", default="", help="E.g. 'width=32,dropout=0.2'.")
@click.option("--plot", type=_PATH, help="Draw it: a .png, .svg or .pdf file.")
@_json_option
@one_sentence
def show(
    name: str, frames: int, size: int, batch_size: int, plot: Path | None, as_json: bool,
    precision: str, model_options: str,
) -> None:  # fmt: skip
    """Show network NAME layer by layer, and the memory a training step of it takes.

    Example: har-models show convlstm --batch-size 8 --plot convlstm.png
    """
    from ... import models
    from ..inspection import diagram, model_summary
    from ..runtime.precision import DTYPES

    models.allow(name)
    if plot is not None:
        diagram.check_plot(name, plot)
    dtype = DTYPES[precision]
    options = Config(model_options=model_options).options
    summary = model_summary.examine(name, frames, (size, size), batch_size, dtype, **options)
    if plot is not None:
        diagram.save(summary, plot)
    click.echo(json.dumps(summary.to_dict(), indent=1) if as_json else model_summary.table(summary))
    if plot is not None:
        click.echo(f"drawn: {plot}", err=as_json)


@click.command()
@_device_option
@click.option("--folder", default="data", show_default=True, type=_PATH, help="For data.")
@one_sentence
def doctor_main(device: str, folder: Path) -> None:
    """Check that this machine can decode and train; exit code 1 if anything fails."""
    from ..inspection import doctor

    counts = {doctor.OK: 0, doctor.WARNING: 0, doctor.FAIL: 0}
    for line in doctor.run_checks(device, folder):
        counts[line.status] += 1
        click.echo(str(line))
    click.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
    sys.exit(1 if counts[doctor.FAIL] else 0)


@click.command()
@click.option(
    "--model", "names", multiple=True, metavar="|".join((*MODEL_NAMES, "all")),
    help="Model to time; repeatable. [all four]",
)  # fmt: skip
@_frames_option
@_size_option
@click.option("--batch-size", type=_COUNT, default=8, show_default=True)
@click.option("--steps", type=_COUNT, default=5, show_default=True, help="Timed steps a round.")
@click.option(
    "--rounds", type=_COUNT, default=3, show_default=True, help="Rounds, interleaved over models."
)
@_device_option
@click.option(
    "--precision", type=click.Choice(CHOICES["precision"]), default="auto", show_default=True
)
@click.option(
    "--recompute", type=click.Choice(CHOICES["recompute"]), default="auto", show_default=True,
    help="convlstm: compute gates again in the backward pass.",
)  # fmt: skip
@_json_option
@one_sentence
def bench_train_main(names: tuple[str, ...], **options: Any) -> None:
    """Time a training step of each model against a plain reference loop, in one run."""
    from ... import models
    from ..benchmark import bench

    if "all" in names or not names:
        names = (*CHOICES["model"], *(name for name in names if name not in CHOICES["model"]))
        names = tuple(name for name in names if name != "all")
    for name in names:
        Config(model=name)  # raises for one that is not there
        models.allow(name)
    click.echo(bench.run(names, **options))
