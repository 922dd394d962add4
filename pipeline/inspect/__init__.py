"""Looking at a shard set: its description in words, contact sheets."""

from .edits import describe_add, describe_edit, describe_leftovers, describe_new_set
from .info import describe_build, describe_set, describe_split
from .preview import PreviewError, contact_sheet, save_picture

__all__ = [
    "PreviewError",
    "contact_sheet",
    "describe_add",
    "describe_build",
    "describe_edit",
    "describe_leftovers",
    "describe_new_set",
    "describe_set",
    "describe_split",
    "save_picture",
]
