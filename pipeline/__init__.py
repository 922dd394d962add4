"""Video files -> shards: decoding, building, looking at what was built."""
