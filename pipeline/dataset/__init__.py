"""A folder or a list of videos -> `Dataset`: what is a video, its class, group, subset and key."""

from .find import FindOptions, find_videos
from .listing import list_folder
from .records import (
    Dataset,
    DatasetError,
    Notes,
    Video,
    hash_path,
    load_notes,
    note_lines,
    save_notes,
)

__all__ = [
    "Dataset",
    "DatasetError",
    "FindOptions",
    "Notes",
    "Video",
    "find_videos",
    "hash_path",
    "list_folder",
    "load_notes",
    "note_lines",
    "save_notes",
]
