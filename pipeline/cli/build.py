"""har-shards build."""

from typing import Any

import click

from ...errors import one_sentence
from .group import shards_main
from .video_options import interruptible, take_find_options, video_options


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
@video_options
@click.option(
    "--check",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="How a finished set is checked: sizes of the shards, or every byte.",
)
@one_sentence
def build(videos: str, out: str, scheduler: str | None, **options: Any) -> None:
    """Decode VIDEOS once into a shard set: a folder of class folders or a list, at a path or a URL,
    or a .zip, .tar, .tar.gz or .rar of such a folder, which is not unpacked.

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
    stopped = f"run the same command again, it goes on in {out}."
    with interruptible(stopped), builds.dask_executor(scheduler) as executor:
        manifest = builds.build_shard_set(
            videos, out, options=build_options, run_options=run_options, executor=executor,
            **take_find_options(options),
        )  # fmt: skip
    click.echo(describe_build(manifest, out))
