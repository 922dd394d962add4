"""har: decode videos once into shards of uint8 clips, stream them, train four video models."""
