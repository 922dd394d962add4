"""har-shards bench and synthetic, har-bench-loader."""

from pathlib import Path
from typing import Any

import click

from ...errors import UserError, one_sentence
from .group import shards_main


@shards_main.command()
@click.argument("videos", type=click.Path(path_type=Path))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--builds/--no-builds", default=True, help="Whole builds too.  [--builds]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def bench(videos: Path, rounds: int, builds: bool, as_json: bool) -> None:
    """How fast VIDEOS (any folder, or a CSV) become clips, codec by codec, beside torchcodec,
    OpenCV and bare decoding; and builds.

    It takes some minutes, 3.1 GB of scratch space (TMPDIR) for the builds, and an idle machine.

    Example: har-shards bench data/UCF-101
    """
    from ..benchmark import build_bench

    click.echo(build_bench.run(videos, as_json=as_json, rounds=rounds, with_builds=builds))


@shards_main.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--hard", is_flag=True, help="Twelve motions, and scenes and motions that vary.")
@click.option("--groups", type=int, help="Groups a class, 1-99.  [10; --hard: 12]")
@click.option("--clips", default=2, show_default=True, help="Clips a group, 1-99.")
@click.option("--seed", default=0, show_default=True, help="Another seed, other scenes.")
@one_sentence
def synthetic(out: Path, hard: bool, groups: int | None, clips: int, seed: int) -> None:
    """Write a small UCF101-shaped set of videos whose classes differ only in their motion.

    Example: har-shards synthetic data/demo/videos
    """
    from ...progress import ProgressBar
    from ..synthetic import EASY, HARD, write_videos

    difficulty = HARD if hard else EASY
    groups = (12 if hard else 10) if groups is None else groups
    with ProgressBar(len(difficulty.paths) * groups * clips, "synthetic") as bar:
        paths = write_videos(
            out, groups=groups, clips=clips, seed=seed, difficulty=difficulty, on_video=bar.advance
        )
    click.echo(f"{out}: {len(paths)} videos of {len(difficulty.paths)} classes")


@click.command()
@click.argument("shards", required=False)
@click.option("--workers", default="2", show_default=True, help="One number, or several: 0,1,2,4.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option(
    "--videos", type=click.Path(path_type=Path), help="For the paper's way. [synthetic ones]"
)
@click.option("--cold", is_flag=True, help="Drop the shards from the page cache before each pass.")
@click.option(
    "--device", default="cpu", show_default=True, help="cuda: also copy and augment there."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw a bar chart into this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def bench_loader_main(shards: str | None, workers: str, **options: Any) -> None:
    """How fast clips come out of SHARDS (without: data/shards or a synthetic set), beside other
    ways.

    Example: har-bench-loader data/shards --workers 2
    """
    from ..benchmark import loader_bench

    try:
        counts = [int(number) for number in workers.split(",")]
    except ValueError:
        counts = [-1]
    if min(counts) < 0:
        raise UserError(f"--workers {workers!r} does not work: give numbers from 0 on, as 0,1,2,4.")
    click.echo(loader_bench.run(shards, workers=counts, **options))
