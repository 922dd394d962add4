"""Shard sets: the format on disk, where they are stored, transforms and the loader.

    from har.shards import open_shard_set

    shard_set = open_shard_set("data/shards")
    for batch in shard_set.loader("train", batch_size=16):
        ...

Notes: the names below are imported when they are used, since the loader imports torch (1 to 2 s),
which `har.shards.format` and the commands that only look at a set do without.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "ShardSet": "shard_set",
    "SubsetLoader": "shard_set",
    "open_shard_set": "shard_set",
    "wds_pipeline": "wds",
}
__all__ = ["ShardSet", "SubsetLoader", "open_shard_set", "wds_pipeline"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value
