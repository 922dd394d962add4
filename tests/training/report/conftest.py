"""What the tests of the report share."""

from pathlib import Path

import pytest
from made_runs import SPEEDS, make

from har.training.report import write_report


@pytest.fixture(scope="package")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Four runs, one of each model, and the folder of their report."""
    root = tmp_path_factory.mktemp("four")
    runs = [make(root / model, model, with_probabilities=True) for model in reversed(SPEEDS)]
    write_report(runs, root / "out")
    return runs, root / "out"
