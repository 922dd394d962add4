"""The tests that need a GPU. `make gpu` runs them on a machine with torch and numpy, but without a
video decoder and a network. Elsewhere they run on the CPU, so that they do not rot; with
HAR_REQUIRE_CUDA=1 a missing GPU is a failure.
"""

import importlib.util
import json
import os
import sys
from types import ModuleType

import pytest
import torch

if importlib.util.find_spec("tomli_w") is None:  # writes config.toml, whose values are all plain
    stand_in = ModuleType("tomli_w")
    stand_in.dumps = lambda values: "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())
    sys.modules["tomli_w"] = stand_in


@pytest.fixture(scope="session")
def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda:0")
    if os.environ.get("HAR_REQUIRE_CUDA") == "1":
        pytest.fail("HAR_REQUIRE_CUDA=1 and torch sees no GPU")
    return torch.device("cpu")
