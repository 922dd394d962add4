"""A folder or a list of videos -> `Dataset`: what is a video, its class, group, subset and key."""

from .find import FindOptions, find_videos
from .listing import list_folder
from .records import Dataset, DatasetError, Video, describe_notes, hash_path, note_lines

__all__ = [
    "Dataset",
    "DatasetError",
    "FindOptions",
    "Video",
    "describe_notes",
    "find_videos",
    "hash_path",
    "list_folder",
    "note_lines",
]
