"""har: decode videos once into shards of uint8 clips, stream them, train four video models."""

import os
from importlib.util import find_spec

# A notebook's kernel hands MPLBACKEND to the commands that it starts; where har is installed apart
# from it, the kernel's backend is missing, and importing matplotlib fails.
_backend = os.environ.get("MPLBACKEND", "").removeprefix("module://").partition(".")[0]
if os.environ.get("MPLBACKEND", "").startswith("module://") and find_spec(_backend) is None:
    os.environ["MPLBACKEND"] = "agg"
