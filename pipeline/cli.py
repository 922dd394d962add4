"""The commands har-shards and har-bench-loader. Their bodies import when called, so that --help
answers at once."""

import signal
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import UserError, one_sentence


@click.group()
def shards_main() -> None:
    """Build, describe, check and look at shard sets: videos decoded once into clips."""


@shards_main.command()
@click.argument("videos")
@click.option("--out", required=True, help="Folder for the set, or a URL: s3://bucket/set.")
@click.option("--frames", default=16, show_default=True, help="Frames of a clip.")
@click.option("--size", default="128x171", show_default=True, help="Height x width of a frame.")
@click.option(
    "--sampling",
    type=click.Choice(["paper", "uniform", "dense"]),
    default="paper",
    show_default=True,
    help="paper: step = frames of the video // T, from the first. uniform: first to last, evenly. "
    "dense: at --stride, --clips windows over the video.",
)
@click.option("--stride", default=2, show_default=True, help="dense: distance of two frames.")
@click.option("--clips", default=1, show_default=True, help="dense: clips a video.")
@click.option(
    "--shard-size",
    default="64MB",
    show_default=True,
    help="Most bytes of a shard; a small set is cut into 8 or a few more all the same.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes that decode. [one a core]")
@click.option("--scheduler", help="Dask cluster that runs the build: tcp://host:8786.")
@click.option(
    "--classes", type=click.Path(path_type=Path), help="Class names in order: classInd.txt."
)
@click.option("--group-regex", help="Finds the group in a video's path, e.g. '_g(\\d+)_'.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True,
    help="Seconds a video may take.",
)  # fmt: skip
@click.option(
    "--max-rejects", type=click.IntRange(0), help="Videos that may fail. [1%, at least 10]"
)
@click.option(
    "--keep-partial", is_flag=True, help="Keep what decodes of a video that fails half way."
)
@one_sentence
def build(videos: str, out: str, scheduler: str | None, **options: Any) -> None:
    """Decode VIDEOS (a folder of class folders, a CSV, or the URL of one) once into a shard set.

    Run again after an interruption, the same command goes on where it stopped.

    Example: har-shards build data/UCF-101 --out data/shards
    """
    from . import build as builds
    from .decode import freeze_imports
    from .inspect import describe_build
    from .sampling import ClipSampler

    sampling = (options[name] for name in ("sampling", "frames", "stride", "clips"))
    build_options = builds.BuildOptions(
        sampling=ClipSampler(*sampling),
        size=builds.parse_size(options["size"]),
        shard_bytes=builds.parse_bytes(options["shard_size"]),
        keep_partial=options["keep_partial"],
    )
    run_options = builds.RunOptions(options["workers"], options["timeout"], options["max_rejects"])
    freeze_imports()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers send it for Ctrl-C
    try:
        with builds.dask_executor(scheduler) as executor:
            manifest = builds.build_shard_set(
                videos, out, options=build_options, run_options=run_options,
                classes=options["classes"], group_regex=options["group_regex"], executor=executor,
            )  # fmt: skip
    except KeyboardInterrupt:
        click.echo(f"\nstopped: run the same command again, it goes on in {out}.", err=True)
        sys.exit(130)
    click.echo(describe_build(manifest, out))


@shards_main.command()
@click.argument("shard_set")
@click.option("--split", "split_name", help="Sizes of this split by class, and its leak.")
@click.option("--seed", default=0, show_default=True, help="Of the split 'paper'.")
@one_sentence
def info(shard_set: str, split_name: str | None, seed: int) -> None:
    """Say what a shard set is: a folder or a URL.

    Example: har-shards info data/shards --split grouped
    """
    from .inspect import describe_set, describe_split

    click.echo(
        describe_split(shard_set, split_name, seed) if split_name else describe_set(shard_set)
    )


@shards_main.command()
@click.argument("shard_set")
@click.option("--quick/--full", default=False, help="Sizes and counts only, or every byte. [full]")
@click.option("--workers", type=click.IntRange(1), help="Threads. [one a core]")
@one_sentence
def verify(shard_set: str, quick: bool, workers: int | None) -> None:
    """Check a shard set (folder or URL) against its manifest; names shard, key and byte of each
    fault.

    Exit code 1 where something is wrong.

    Example: har-shards verify data/shards
    """
    from ..progress import ProgressBar
    from ..shards.format import load_manifest, verify_full, verify_quick

    manifest = load_manifest(shard_set)
    if quick:
        faults = verify_quick(manifest)
    else:
        with ProgressBar(len(manifest.shards), "verify", "shard") as bar:
            faults = verify_full(manifest, workers=workers, progress=bar.advance)
    for fault in faults:
        click.echo(str(fault), err=True)
    if faults:
        click.echo(f"{len(faults)} faults in {shard_set}: build it again.", err=True)
        sys.exit(1)
    num_bytes = sum(shard.bytes for shard in manifest.shards)
    checked = "sizes and counts" if quick else "every byte"
    click.echo(
        f"{shard_set}: {len(manifest.index)} clips in {len(manifest.shards)} shards, "
        f"{num_bytes / 1e6:.1f} MB, {checked} as written."
    )


@shards_main.command()
@click.argument("shard_set")
@click.option(
    "-o", "--out", default="sheet.png", show_default=True, type=click.Path(path_type=Path)
)
@click.option("--rows", default=12, show_default=True, help="Clips, at most.")
@click.option("--frames", default=8, show_default=True, help="Frames of each, at most.")
@click.option("--class", "classes", multiple=True, help="Only this class (* and ? work).")
@click.option("--key", "keys", multiple=True, help="Only this key (* and ? work).")
@one_sentence
def preview(
    shard_set: str, out: Path, rows: int, frames: int, classes: tuple[str, ...],
    keys: tuple[str, ...],
) -> None:  # fmt: skip
    """Draw a contact sheet of a shard set (folder or URL): class, key, frames side by side.

    Example: har-shards preview data/shards -o sheet.png --class 'Yo*'
    """
    from .inspect import contact_sheet, save_picture

    picture = contact_sheet(
        shard_set, rows=max(1, rows), frames=max(1, frames), classes=classes, keys=keys
    )
    save_picture(picture, out)
    click.echo(f"{out}: {picture.width}x{picture.height}")


@shards_main.command()
@click.argument("videos", type=click.Path(path_type=Path))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence
def bench(videos: Path, rounds: int, as_json: bool) -> None:
    """How fast VIDEOS become clips, beside torchcodec, OpenCV and bare decoding; and builds.

    It takes some minutes, 3.2 GB of scratch space (TMPDIR), and an idle machine.

    Example: har-shards bench data/UCF-101
    """
    from .benchmark import build_bench

    click.echo(build_bench.run(videos, as_json=as_json, rounds=rounds))


@shards_main.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--groups", default=10, show_default=True, help="Groups a class, 1-99.")
@click.option("--clips", default=2, show_default=True, help="Clips a group, 1-99.")
@click.option("--seed", default=0, show_default=True, help="Another seed, other scenes.")
@one_sentence
def synthetic(out: Path, groups: int, clips: int, seed: int) -> None:
    """Write a small UCF101-shaped set of videos whose classes differ only in their motion.

    Example: har-shards synthetic data/demo/videos
    """
    from ..progress import ProgressBar
    from .synthetic import CLASSES, write_videos

    with ProgressBar(len(CLASSES) * groups * clips, "synthetic") as bar:
        paths = write_videos(out, groups=groups, clips=clips, seed=seed, on_video=bar.advance)
    click.echo(f"{out}: {len(paths)} videos of {len(CLASSES)} classes")


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
    from .benchmark import loader_bench

    try:
        counts = [int(number) for number in workers.split(",")]
    except ValueError:
        counts = [-1]
    if min(counts) < 0:
        raise UserError(f"--workers {workers!r} does not work: give numbers from 0 on, as 0,1,2,4.")
    click.echo(loader_bench.run(shards, workers=counts, **options))
