"""Run a notebook from start to end and keep what its cells show.

python tests/support/run_notebook.py examples/ucf101.ipynb   # in place; the outputs are stored
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def run_notebook(notebook, folder):
    """Run the cells in `folder`, with this Python and its commands. Raises CellExecutionError."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    jupyter = {name: str(folder) for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env=os.environ | jupyter | {"PATH": path})


if __name__ == "__main__":
    source = Path(sys.argv[1])
    stored = nbformat.read(source, as_version=4)
    with tempfile.TemporaryDirectory() as scratch:
        run_notebook(stored, scratch)
    nbformat.write(stored, source)
