"""Command lines: thin, their bodies import when called, so that --help answers at once."""

from . import build, edits, sets  # noqa: F401 (they add themselves to shards_main)
from .benches import bench_loader_main
from .group import shards_main

__all__ = ["bench_loader_main", "shards_main"]
