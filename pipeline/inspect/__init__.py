"""Looking at a shard set: its description in words, contact sheets."""
