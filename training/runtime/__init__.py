"""The machine and the run: device, ranks, checkpoints, run folder, signals, progress."""
