"""Every Python that has this folder on its path lacks what `bare_machine` takes away."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import bare_machine

bare_machine.take_away()
