"""har-shards build."""

import signal
import sys
from typing import Any

import click

from ...errors import one_sentence
from .find_options import find_options, take_find_options
from .group import shards_main


@shards_main.command()
@click.argument("videos")
@click.option("--out", required=True, help="Folder for the set, or a URL: s3://bucket/set.")
@click.option("--frames", default=16, show_default=True, help="Frames of a clip.")
@click.option("--size", default="128x171", show_default=True, help="Height x width of a frame.")
@click.option(
    "--fit",
    type=click.Choice(["squeeze", "crop", "pad"]),
    default="squeeze",
    show_default=True,
    help="Frames of another shape (portrait, say): squeezed to --size, their center cut out, or "
    "shown whole between black bars.",
)
@click.option(
    "--sampling",
    type=click.Choice(["paper", "uniform", "dense"]),
    default="paper",
    show_default=True,
    help="paper: step = frames of the video // T, from the first. uniform: first to last, evenly. "
    "dense: at --stride or --fps, --clips windows over the video.",
)
@click.option("--stride", type=int, help="dense: distance of two frames. [2]")
@click.option("--fps", type=float, help="dense: frames a second, by their time stamps.")
@click.option("--clips", default=1, show_default=True, help="dense: clips a video.")
@click.option(
    "--stream", type=click.IntRange(min=0),
    help="Index of the video stream, where files have several. [the one that a player shows]",
)  # fmt: skip
@click.option(
    "--shard-size",
    default="64MB",
    show_default=True,
    help="Most bytes of a shard; a small set is cut into 8 or a few more all the same.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes that decode. [one a core]")
@click.option("--scheduler", help="Dask cluster that runs the build: tcp://host:8786.")
@find_options
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True,
    help="Seconds a video may take.",
)  # fmt: skip
@click.option(
    "--max-rejects", type=click.IntRange(0), help="Videos that may fail. [1%, at least 10]"
)
@click.option(
    "--keep-partial", is_flag=True, help="Keep what decodes of a video that is cut off or damaged."
)
@click.option(
    "--check",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="How a finished set is checked: sizes of the shards, or every byte.",
)
@one_sentence
def build(videos: str, out: str, scheduler: str | None, **options: Any) -> None:
    """Decode VIDEOS once into a shard set: a folder of class folders, a list, the URL of one, or a
    .zip, .tar, .tar.gz or .rar of such a folder, which is not unpacked.

    Run again after an interruption, the same command goes on where it stopped. On a finished set it
    makes again what is missing or wrong, and looks again at videos that gave no clip.

    Example: har-shards build data/UCF-101 --out data/shards
    """
    from .. import build as builds
    from ..decode import freeze_imports
    from ..inspect import describe_build
    from ..sampling import ClipSampler

    sampling = (
        options[name] for name in ("sampling", "frames", "stride", "clips", "fps", "stream")
    )
    build_options = builds.BuildOptions(
        sampling=ClipSampler(*sampling),
        size=builds.parse_size(options["size"]),
        shard_bytes=builds.parse_bytes(options["shard_size"]),
        keep_partial=options["keep_partial"],
        fit=options["fit"],
    )
    names = ("workers", "timeout", "max_rejects", "check")
    run_options = builds.RunOptions(**{name: options[name] for name in names})
    freeze_imports()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers send it for Ctrl-C
    try:
        with builds.dask_executor(scheduler) as executor:
            manifest = builds.build_shard_set(
                videos, out, options=build_options, run_options=run_options, executor=executor,
                **take_find_options(options),
            )  # fmt: skip
    except KeyboardInterrupt:
        click.echo(f"\nstopped: run the same command again, it goes on in {out}.", err=True)
        sys.exit(130)
    click.echo(describe_build(manifest, out))
