"""`har-bench-train`: training steps beside a plain loop, in one interleaved run."""
