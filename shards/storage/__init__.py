"""Shard sets behind URLs: fsspec, the cache of this host, fetching ahead."""
