"""The machine and the run: device, ranks, checkpoints, run folder, signals, timing.

Modules are imported by name (`from .runtime import checkpoint`): each is one small subject.
"""
