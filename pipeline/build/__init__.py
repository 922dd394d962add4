"""A data set of videos -> a shard set: plan, shard tasks, executors."""

from .add import Added, AddOptions, add_videos
from .build import build_shard_set
from .dask import ClusterError, dask_executor
from .executor import BuildError, RunOptions
from .plan import BuildOptions, PlanError, parse_bytes, parse_size
from .shard_task import TaskError
from .video_rows import describe_reasons, load_rejects, load_warnings

__all__ = [
    "AddOptions",
    "Added",
    "BuildError",
    "BuildOptions",
    "ClusterError",
    "PlanError",
    "RunOptions",
    "TaskError",
    "add_videos",
    "build_shard_set",
    "dask_executor",
    "describe_reasons",
    "load_rejects",
    "load_warnings",
    "parse_bytes",
    "parse_size",
]
