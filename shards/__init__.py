"""Shard sets: the format on disk, where they are stored, transforms and the loader."""
