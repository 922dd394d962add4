"""Commands about finished runs: har-eval, -predict, -report, -export, -serve, and -reproduce.

Nothing heavy is imported outside their bodies: --help answers at once.
"""

import sys
from pathlib import Path
from typing import Any

import click

from ...errors import one_sentence
from ..config import CHOICES, ConfigError

_PATH = click.Path(path_type=Path)
_COUNT = click.IntRange(min=1)
_device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, xpu or mps."
)
_views_option = click.option(
    "--views", type=_COUNT, help="Average over this many views of a video. [one of each clip]"
)


@click.command()
@click.argument("run", type=_PATH)
@click.option("--shards", type=_PATH, help="Shard set. [the run's]")
@click.option("--split", help="Split to evaluate on. [the run's]")
@click.option(
    "--subset", type=click.Choice(["test", "val", "train"]), default="test", show_default=True
)
@click.option("--views", default=1, show_default=True, help="Views of a video to average over.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1),
    help="Count a video whose best answer is less probable as unknown.",
)  # fmt: skip
@click.option("--batch-size", type=_COUNT, help="Clips per step. [the run's]")
@_device_option
@click.option("--allow-other-split", is_flag=True, help="Evaluate on a split not trained on.")
@one_sentence
def eval_main(run: Path, **options: Any) -> None:
    """Evaluate the best checkpoint of the run folder RUN, or of each fold in it, or the checkpoint
    RUN/NAME.pt."""
    from ..api import load_run

    click.echo(str(load_run(run).evaluate(**options)))


@click.command()
@click.argument("run", type=_PATH)
@click.argument("videos", nargs=-1)
@click.option("--top", type=_COUNT, default=5, show_default=True, help="How many classes to print.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "-o", "--out", type=_PATH, help="Write to this file instead: .csv, .json or .jsonl (lines)."
)
@click.option("--threshold", type=float, help="Label what is less probable as unknown (0 to 1).")
@click.option(
    "--timing", is_flag=True, help="Print the milliseconds of each video, and their mean."
)
@click.option("--window", type=float, help="Answer for windows of this many seconds.")
@click.option("--hop", type=float, help="Seconds from window to window. [half a window]")
@click.option("--timeline", type=_PATH, help="Draw the windows' answers over time (.png, .svg).")
@click.option(
    "--annotate", type=_PATH, help="Write the video with its label drawn in, and its sound (.mp4)."
)
@click.option("--cam", type=_PATH, help="Show where the model looks (.gif).")
@click.option(
    "--stream", type=click.IntRange(min=0),
    help="Index of the video stream, where a file has several. [the run's, else the main one]",
)  # fmt: skip
@click.option(
    "--max-mb", type=_COUNT, default=100, show_default=True,
    help="Largest file of a URL or standard input.",
)  # fmt: skip
@click.option(
    "--max-seconds", type=_COUNT, default=120, show_default=True,
    help="Longest video of a URL; a live stream is recorded that long.",
)  # fmt: skip
@click.option(
    "--timeout", type=_COUNT, default=30, show_default=True,
    help="Seconds without a byte, after which a URL is given up.",
)  # fmt: skip
@_views_option
@_device_option
@one_sentence
def predict_main(run: Path, videos: tuple[str, ...], **options: Any) -> None:
    """Predict the action in VIDEOS with the run folder RUN, or with the checkpoint RUN/NAME.pt.

    VIDEOS are files, folders, globs, URLs, and - for standard input.

    For several videos, --timeline, --annotate and --cam take a folder.
    """
    from ..prediction import predict_videos

    sys.exit(predict_videos(run, videos, **options))


@click.command()
@click.argument("runs", nargs=-1, required=True, type=_PATH)
@click.option(
    "-o", "--out", type=_PATH, default=Path("reports/latest"), show_default=True,
    help="Folder for the report.",
)  # fmt: skip
@click.option(
    "--contact-sheet", type=_PATH,
    help="A picture of clips to show, as 'har-shards preview' draws it.",
)  # fmt: skip
@click.option(
    "--allow-mixed",
    is_flag=True,
    help="Allow runs that do not compare: other classes, shards, splits, subsets or views.",
)
@click.option(
    "--subset", type=click.Choice(["test", "val", "train"]),
    help="Take the evaluations on this subset. [test; val where a run has no test clips]",
)  # fmt: skip
@click.option(
    "--views", type=_COUNT, help="Take the evaluations with this many views. [the fewest]"
)
@click.option("--ensemble", is_flag=True, help="Add a row: the mean probabilities of all runs.")
@click.option("--cards", is_flag=True, help="Write a MODEL_CARD.md into each run folder, too.")
@one_sentence
def report_main(
    runs: tuple[Path, ...], out: Path, cards: bool, subset: str | None, views: int | None,
    **options: Any,
) -> None:  # fmt: skip
    """Write the report of evaluated run folders: Table 1, curves and the rest.

    A folder of folds (har-train --folds) is one row.
    """
    from ..report import write_model_card, write_report
    from ..runtime.fold_dir import list_run_folders

    click.echo(f"report: {write_report(runs, out, subset=subset, views=views, **options)}")
    for folder in (folder for run in runs if cards for folder in list_run_folders(run)):
        click.echo(f"card: {write_model_card(folder, subset, views)}")


@click.command()
@click.argument("run", type=_PATH)
@click.option("-o", "--out", type=_PATH, required=True, help="File: .pt2 (torch.export) or .onnx.")
@click.option(
    "--preprocessing/--no-preprocessing", default=True, show_default=True,
    help="Take uint8 frames as the shards hold them, or the network's own input.",
)  # fmt: skip
@click.option(
    "--example", is_flag=True,
    help="Write OUT_example.py too: predicts a video with onnxruntime, av, numpy and pillow alone.",
)  # fmt: skip
@one_sentence
def export_main(run: Path, out: Path, preprocessing: bool, example: bool) -> None:
    """Write the best checkpoint of RUN, or the checkpoint RUN/NAME.pt, as one file for other
    programs, checked against it.

    OUT.json beside it says what to feed it and what it answers.

    Example: har-export runs/r2plus1d -o r2plus1d.onnx --example
    """
    from ..inference import describe_export, export_run

    result = export_run(run, out, preprocessing=preprocessing, example=example)
    click.echo(describe_export(result))


@click.command()
@click.argument("run", type=_PATH)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="0: any free one.")
@click.option("--max-mb", type=_COUNT, default=100, show_default=True, help="Largest file taken.")
@click.option(
    "--max-seconds", type=_COUNT, default=120, show_default=True, help="Longest video taken."
)
@click.option(
    "--root-path", default="", help="Behind a proxy: the path or URL at which it shows the page."
)
@click.option(
    "--allowed-host", "allowed_hosts", multiple=True,
    help="Behind a proxy: a name that requests may come under. Repeatable.",
)  # fmt: skip
@_views_option
@_device_option
@one_sentence
def serve_main(run: Path, **options: Any) -> None:
    """Serve a page on this machine for a video or a webcam: top classes, frames, attention.

    Programs use its API (/predict of Gradio, JSON) and /health.
    """
    from ..serving import serve_run

    serve_run(run, **options)


@click.command()
@click.argument("videos", type=_PATH)
@click.argument("train_options", nargs=-1, type=click.UNPROCESSED)
@click.option("--shards", type=_PATH, default=Path("data/shards"), show_default=True)
@click.option("--runs", type=_PATH, default=Path("runs/paper"), show_default=True)
@click.option("--reports", type=_PATH, default=Path("reports/paper"), show_default=True)
@click.option(
    "--preset", "presets", multiple=True, type=click.Choice(CHOICES["preset"]), help="[both]"
)
@click.option("--split", "splits", multiple=True, help="Repeatable. [paper, official-1]")
@click.option(
    "--model", "models", multiple=True, type=click.Choice(CHOICES["model"]),
    help="Repeatable. [all four]",
)  # fmt: skip
@click.option(
    "--seeds", type=_COUNT, default=3, show_default=True, help="Runs of each, with seeds 0, 1, ..."
)
@click.option("--weights", help="Of r3d: kinetics400, none, or a file. [kinetics400]")
@click.option("--dry-run", is_flag=True, help="Only print what is to be done and what it costs.")
@one_sentence
def reproduce_main(dry_run: bool, train_options: tuple[str, ...], **options: Any) -> None:
    """Reproduce the whole paper on VIDEOS (UCF101): shards, all runs, evaluation, reports.

    What is done is skipped, so the same command goes on after a stop. Options of har-train may
    follow after --, for every run.

    Example: har-reproduce data/UCF-101 -- --epochs 30
    """
    from ..paper import ReproduceOptions, reproduce_paper

    settings = _parse_train_options(train_options)
    given = {name: value for name, value in options.items() if value not in ((), None)}
    given |= {"train_config": settings.pop("file", None), "train_settings": settings}
    sys.exit(reproduce_paper(ReproduceOptions(**given), dry_run=dry_run))


def _parse_train_options(words: tuple[str, ...]) -> dict[str, Any]:
    """Options of har-train -> those that were given, by the names of its parameters."""
    from .train import train_main

    try:
        settings = train_main.make_context("har-train", list(words)).params
    except click.UsageError as error:
        raise ConfigError(f"after the -- stand options of har-train: {error.message}") from error
    return {name: value for name, value in settings.items() if value is not None}
