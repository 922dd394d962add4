"""A data set of videos -> a shard set: plan, shard tasks, executors."""
