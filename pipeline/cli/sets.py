"""har-shards info, verify, preview: finished shard sets."""

import sys
from pathlib import Path

import click

from ...errors import UserError, one_sentence
from .group import shards_main


@shards_main.command()
@click.argument("shard_set")
@click.option("--split", "split_name", help="Sizes of this split by class, and its leak.")
@click.option(
    "--split-seed", "--seed", "seed", default=0, show_default=True, help="Of 'paper' and fold-I/K."
)
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path),
    help="With --split: write key, subset, label, class and group of each clip; .csv or .json.",
)
@one_sentence
def info(shard_set: str, split_name: str | None, seed: int, keys_file: Path | None) -> None:
    """Say what a shard set is: a folder or a URL.

    Example: har-shards info data/shards --split grouped
    """
    from ...shards.format import load_manifest
    from ...shards.splits import make_split
    from ..inspect import describe_set, describe_split
    from ..lists import write_keys

    if keys_file and not split_name:
        raise UserError("--keys writes the subsets of a split: name it with --split.")
    text = describe_split(shard_set, split_name, seed) if split_name else describe_set(shard_set)
    if keys_file:
        manifest = load_manifest(shard_set)
        num_clips = write_keys(manifest, make_split(manifest, split_name or "", seed), keys_file)
        text += f"\n{keys_file}: {num_clips} clips"
    click.echo(text)


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
    from ...progress import ProgressBar
    from ...shards.format import load_manifest, verify_full, verify_quick
    from ..inspect import describe_leftovers

    manifest = load_manifest(shard_set)
    if quick:
        faults = verify_quick(manifest)
    else:
        with ProgressBar(len(manifest.shards), "verify", "shard") as bar:
            faults = verify_full(manifest, workers=workers, progress=bar.advance)
    for fault in faults:
        click.echo(str(fault), err=True)
    if faults:
        remedy = "run the same 'har-shards build' again with --check full"
        if all(fault.is_foreign for fault in faults):
            remedy = "move it elsewhere"
        elif manifest.edits:
            remedy = (
                "take those shards from a copy, or save the clips that are whole with "
                f"'har-shards subset {shard_set} --intact -o NEW'"
            )
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        click.echo(f"{count} in {shard_set}: {remedy}.", err=True)
        sys.exit(1)
    for line in describe_leftovers(manifest):
        click.echo(line)
    checked = "sizes and counts" if quick else "every byte"
    click.echo(
        f"{shard_set}: {len(manifest.index)} clips in {len(manifest.shards)} shards, "
        f"{manifest.num_bytes / 1e6:.1f} MB, {checked} as written."
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
    from ..inspect import contact_sheet, save_picture

    picture = contact_sheet(
        shard_set, rows=max(1, rows), frames=max(1, frames), classes=classes, keys=keys
    )
    save_picture(picture, out)
    click.echo(f"{out}: {picture.width}x{picture.height}")
