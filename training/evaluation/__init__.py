"""What a finished run is worth: evaluation and its metrics."""
