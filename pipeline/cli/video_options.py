"""The options of the commands that find and decode videos, and how they stop."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

merge_case_option = click.option(
    "--merge-case", is_flag=True, help="Class names Run and run are one class."
)
_FIND_OPTIONS = (
    click.option(
        "--list",
        "lists",
        multiple=True,
        help="List of videos in the folder VIDEOS, with labels and subsets; may be given again, or "
        "as a quoted pattern: CSV, 'path label' lines, and the lists of UCF101, HMDB51, Kinetics, "
        "Something-Something, Jester (docs/data.md). A list may also stand for VIDEOS.",
    ),
    click.option(
        "--layout",
        metavar="LAYOUT",
        help="What the folders mean: class/clip, class/group/clip, split/class/clip or "
        "split/class/group/clip. [guessed from their names]",
    ),
    click.option(
        "--classes",
        type=click.Path(path_type=Path),
        help="Class names in order, one a line: classInd.txt.",
    ),
    merge_case_option,
    click.option("--group-regex", help="Finds the group in a video's path, e.g. '_g(\\d+)_'."),
)
_DECODE_OPTIONS = (
    click.option(
        "--shard-size",
        default="64MB",
        show_default=True,
        help="Most bytes of a shard; build cuts a small set into 8 or a few more all the same.",
    ),
    click.option("--workers", type=click.IntRange(1), help="Processes that decode. [one a core]"),
    click.option("--scheduler", help="Dask cluster that decodes: tcp://host:8786."),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=300.0,
        show_default=True,
        help="Seconds a video may take.",
    ),
    click.option(
        "--max-rejects", type=click.IntRange(0), help="Videos that may fail. [1%, at least 10]"
    ),
    click.option(
        "--keep-partial",
        is_flag=True,
        help="Keep what decodes of a video that is cut off or damaged.",
    ),
)


def video_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a click command with the options of finding and decoding."""
    for option in reversed(_FIND_OPTIONS + _DECODE_OPTIONS):
        command = option(command)
    return command


def take_find_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of `options` that `find_videos` takes."""
    names = ("classes", "group_regex", "layout", "lists", "merge_case")
    return {name: options[name] for name in names}


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM in the block end the command with this message and exit code 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers send it for Ctrl-C
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nstopped: {message}", err=True)
        sys.exit(130)
