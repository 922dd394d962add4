"""The options of every command that looks for videos: the arguments of `find_videos`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_OPTIONS = (
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
    click.option("--merge-case", is_flag=True, help="Class names Run and run are one class."),
    click.option("--group-regex", help="Finds the group in a video's path, e.g. '_g(\\d+)_'."),
)


def find_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a click command with the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_find_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of `options` that `find_videos` takes."""
    names = ("classes", "group_regex", "layout", "lists", "merge_case")
    return {name: options[name] for name in names}
