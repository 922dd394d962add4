"""har-shards add, remove, relabel, compact, merge, subset: finished sets that change."""

from pathlib import Path
from typing import Any

import click

from ...errors import UserError, one_sentence
from .group import shards_main
from .video_options import interruptible, merge_case_option, take_find_options, video_options

_key_list_option = click.option(
    "--list", "list_file", type=click.Path(path_type=Path), help="Keys, one a line, or a CSV's key."
)


@shards_main.command()
@click.argument("shard_set")
@click.argument("videos")
@click.option(
    "--existing",
    type=click.Choice(["refuse", "skip", "rename"]),
    default="refuse",
    show_default=True,
    help="Videos whose keys are in the set: refuse all, leave these out, or give them other keys.",
)
@video_options
@one_sentence
def add(shard_set: str, videos: str, scheduler: str | None, **options: Any) -> None:
    """Decode VIDEOS (see build) into SHARD_SET (folder or URL), as its clips are made.

    Classes keep their numbers, new ones get the next; the shards that are there keep every byte.
    Run again after an interruption, the same command goes on where it stopped.

    Example: har-shards add data/shards data/more
    """
    from .. import build as builds
    from ..dataset import find_videos
    from ..decode import freeze_imports
    from ..inspect import describe_add

    add_options = builds.AddOptions(
        options["existing"],
        options["merge_case"],
        builds.parse_bytes(options["shard_size"]),
        options["keep_partial"],
    )
    run_options = builds.RunOptions(options["workers"], options["timeout"], options["max_rejects"])
    freeze_imports()
    stopped = f"{shard_set} is as it was; the same command goes on where it stopped."
    with interruptible(stopped), builds.dask_executor(scheduler) as executor:
        added = builds.add_videos(
            shard_set,
            lambda: find_videos(videos, **take_find_options(options)),
            add_options=add_options, run_options=run_options, executor=executor,
        )  # fmt: skip
    click.echo(describe_add(added))


@shards_main.command()
@click.argument("shard_set")
@click.option("--key", "keys", multiple=True, help="This video or clip (* and ? work); repeatable.")
@_key_list_option
@one_sentence
def remove(shard_set: str, keys: tuple[str, ...], list_file: Path | None) -> None:
    """Take clips out of SHARD_SET (folder or URL), at once; 'compact' frees their bytes.

    Example: har-shards remove data/shards --key 'v_YoYo_g07_*'
    """
    from ...shards.edit import remove_clips
    from ...shards.format import load_manifest
    from ..inspect import describe_edit
    from ..lists import read_keys

    names = [*keys, *(read_keys(list_file) if list_file else ())]
    if not names:
        raise UserError("name the clips with --key or --list.")
    before = load_manifest(shard_set)
    click.echo(describe_edit(before, remove_clips(shard_set, names)))


@shards_main.command()
@click.argument("shard_set")
@click.argument("labels", type=click.Path(path_type=Path))
@merge_case_option
@one_sentence
def relabel(shard_set: str, labels: Path, merge_case: bool) -> None:
    """Give clips of SHARD_SET (folder or URL) the classes, groups and subsets of a CSV: columns
    key and any of label, group, split.

    New classes get the next numbers. 'compact' writes the labels into the shards.

    Example: har-shards relabel data/shards labels.csv
    """
    from ...shards.edit import relabel_clips
    from ...shards.format import load_manifest
    from ..inspect import describe_edit
    from ..lists import read_labels

    before = load_manifest(shard_set)
    after = relabel_clips(shard_set, read_labels(labels), merge_case=merge_case)
    click.echo(describe_edit(before, after))


@shards_main.command()
@click.argument("shard_set")
@one_sentence
def compact(shard_set: str) -> None:
    """Write anew the shards of SHARD_SET (folder or URL) that hold removed clips or old labels.

    Example: har-shards compact data/shards
    """
    from ...progress import ProgressBar
    from ...shards.edit import compact_set
    from ...shards.format import load_manifest
    from ..inspect import describe_edit

    before = load_manifest(shard_set)
    with ProgressBar(len(before.shards), "compact", "shard") as bar:
        after = compact_set(shard_set, bar.advance)
    click.echo(describe_edit(before, after))


@shards_main.command()
@click.argument("first")
@click.argument("second")
@click.option("-o", "--out", required=True, help="Folder for the new set, or a URL.")
@click.option(
    "--groups",
    type=click.Choice(["unite", "apart", "none"]),
    default="unite",
    show_default=True,
    help="Groups of one name in both sets: one group, two, or no groups at all.",
)
@click.option("--skip-existing", is_flag=True, help="Leave out SECOND's clips with keys of FIRST.")
@merge_case_option
@one_sentence
def merge(first: str, second: str, out: str, **options: Any) -> None:
    """Make one set of FIRST and SECOND (folders or URLs), whose clips must be made alike.

    Classes are united by name; those of FIRST keep their numbers. Nothing is decoded.

    Example: har-shards merge data/shards data/other -o data/both
    """
    from ...progress import ProgressBar
    from ...shards.edit import merge_sets
    from ...shards.format import load_manifest
    from ..inspect import describe_new_set

    sets = [load_manifest(root) for root in (first, second)]
    with ProgressBar(sum(len(manifest.shards) for manifest in sets), "merge", "shard") as bar:
        merged = merge_sets(first, second, out, **options, progress=bar.advance)
    num_clips = sum(len(manifest.index) for manifest in sets)
    click.echo(describe_new_set(merged, num_clips - len(merged.index)))


@shards_main.command()
@click.argument("shard_set")
@click.option("-o", "--out", required=True, help="Folder for the new set, or a URL.")
@click.option(
    "--classes", multiple=True, help="Only these classes: A,B,C; again for a name with a comma."
)
@click.option("--per-class", type=click.IntRange(1), help="Videos a class, at most.")
@click.option("--intact", is_flag=True, help="Only clips that are as written, of a damaged set.")
@_key_list_option
@one_sentence
def subset(
    shard_set: str, out: str, classes: tuple[str, ...], per_class: int | None, intact: bool,
    list_file: Path | None,
) -> None:  # fmt: skip
    """Make a new set of some clips of SHARD_SET (folder or URL); options together narrow it down.

    Example: har-shards subset data/shards --classes Punch,YoYo --per-class 20 -o data/small
    """
    from ...progress import ProgressBar
    from ...shards.edit import subset_set
    from ...shards.format import load_manifest
    from ..inspect import describe_new_set
    from ..lists import read_keys

    keys = read_keys(list_file) if list_file else None
    if not (classes or per_class or keys or intact):
        raise UserError("say which clips with --classes, --per-class, --list or --intact.")
    manifest = load_manifest(shard_set)
    lists = ([text] if text in manifest.classes else text.split(",") for text in classes)
    names = [name.strip() for some in lists for name in some if name.strip()]
    with ProgressBar(len(manifest.shards), "subset", "shard") as bar:
        new_set = subset_set(
            shard_set, out, classes=names, per_class=per_class, keys=keys, intact=intact,
            progress=bar.advance,
        )  # fmt: skip
    click.echo(describe_new_set(new_set))
