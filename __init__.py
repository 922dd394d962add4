"""har: decode videos once into shards of uint8 clips, stream them, train four video models.

    import har

    run = har.train(model="convlstm", shards="data/shards", epochs=5)
    run.evaluate()
    har.predict(run, "videos/")

Notes: the names below are imported when they are used, since they import torch (1 to 2 s).
"""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import HarError
    from .training.api.run import Evaluation, Run, load_run
    from .training.api.train_run import predict, resume, train

_MODULES = {"HarError": ".errors"} | dict.fromkeys(
    ("Evaluation", "Run", "load_run", "predict", "resume", "train"), ".training.api"
)
_PACKAGES = ("errors", "models", "pipeline", "shards", "training")
__all__ = [
    "Evaluation", "HarError", "Run", "errors", "load_run", "models", "pipeline", "predict",
    "resume", "shards", "train", "training",
]  # fmt: skip

# A notebook's kernel hands MPLBACKEND to the commands that it starts; where har is installed apart
# from it, the kernel's backend is missing, and importing matplotlib fails.
_backend = os.environ.get("MPLBACKEND", "").removeprefix("module://").partition(".")[0]
if os.environ.get("MPLBACKEND", "").startswith("module://") and find_spec(_backend) is None:
    os.environ["MPLBACKEND"] = "agg"


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_MODULES[name], __name__), name)
    return value
