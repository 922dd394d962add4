"""The format of a shard set: schema, writing, reading, verification."""
