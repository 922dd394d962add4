"""Run commands of har in this process as on a machine that lacks what Linux and the extras bring.

    python bare_machine.py '[["har-shards", "synthetic", ...], ["har-train", ...]]'

- Packages that only extras bring are not there, for anybody.
- For har, `fcntl` and `resource` are not there, folders cannot be opened (Windows), and there is no
  /proc; `os` has no preadv, pread, posix_fadvise, sched_getaffinity, sysconf, memfd_create.
- This folder has a `sitecustomize` for processes that the commands start: they run the same way.
"""

import builtins
import importlib.abc
import io
import json
import os
import sys
from importlib.machinery import PathFinder

from commands import load_command

EXTRAS = {  # import names of what pyproject.toml's extras bring; fsspec comes with torch
    "torchcodec", "cv2", "litdata", "dask", "distributed", "s3fs", "tensorboard", "gradio", "onnx",
    "onnxscript", "onnxruntime", "pytest", "xdist", "hypothesis", "scipy", "sklearn", "moto",
    "pdoc", "rarfile", "pandas", "nbclient", "ipykernel",
}  # fmt: skip
UNIX_MODULES = {"fcntl", "resource"}
UNIX_FUNCTIONS = (
    "preadv", "pread", "posix_fadvise", "sched_getaffinity", "sysconf", "memfd_create",
    "O_DIRECTORY",
)  # fmt: skip


class WithoutExtras(importlib.abc.MetaPathFinder):
    """The finder of installed packages, which does not find those of the extras."""

    find_distributions = staticmethod(PathFinder.find_distributions)

    def find_spec(self, name, path=None, target=None):
        is_extra = name.partition(".")[0] in EXTRAS
        return None if is_extra else PathFinder.find_spec(name, path, target)


def _is_har(depth=2):
    return sys._getframe(depth).f_globals.get("__name__", "").startswith("har.")


def take_away():
    """From now on this process lacks all of that."""
    sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras()
    real_import, real_open, real_stat, real_os_open = (
        builtins.__import__, io.open, os.stat, os.open
    )  # fmt: skip

    def import_(name, *arguments, **more):
        if name in UNIX_MODULES and _is_har():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *arguments, **more)

    def without_proc(function):
        def call(path, *arguments, **more):
            if str(path).startswith("/proc"):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            return function(path, *arguments, **more)

        return call

    def os_open(path, *arguments, **more):
        if _is_har() and os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real_os_open(path, *arguments, **more)

    builtins.__import__, os.open = import_, os_open
    builtins.open = io.open = without_proc(real_open)
    os.stat = without_proc(real_stat)
    for name in UNIX_FUNCTIONS:
        delattr(os, name)


def run(commands):
    """Each command in turn; ends with the exit code of the first that fails."""
    for name, *words in commands:
        try:
            load_command(name)(words)
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
