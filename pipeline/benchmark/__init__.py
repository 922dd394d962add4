"""`har-shards bench` and `har-bench-loader`: ratios to the usual ways, in one interleaved run."""
