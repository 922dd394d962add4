"""Finished sets that change: clips removed, relabelled, shards compacted, sets merged and cut."""

from .changes import count_moved_clips
from .compact import compact_set
from .merge import common_versions, merge_sets
from .names import common_grouping, number_classes, number_names
from .rows import find_clips, relabel_clips, remove_clips
from .subset import subset_set
from .transaction import EditError, commit_edit, locked_set

__all__ = [
    "EditError", "commit_edit", "common_grouping", "common_versions", "compact_set",
    "count_moved_clips", "find_clips", "locked_set", "merge_sets", "number_classes",
    "number_names", "relabel_clips", "remove_clips", "subset_set",
]  # fmt: skip
