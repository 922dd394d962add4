"""Batches from shards: sampler, worker threads, reused buffers."""
