"""The door for Python: `har.train`, `har.resume`, `har.load_run`, `har.predict`.

The commands har-train, har-eval and har-predict go through the same functions: what they check is
checked here, with the same sentences (`HarError`). docs/python.md shows it at work.
"""

from .run import Evaluation, Run, load_run
from .train_run import fit_or_stop, is_main_process, predict, resume, train

__all__ = [
    "Evaluation", "Run", "fit_or_stop", "is_main_process", "load_run", "predict", "resume", "train",
]  # fmt: skip
