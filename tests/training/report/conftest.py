"""What the tests of the report share."""

from pathlib import Path

import pytest
from made_runs import SPEEDS, make

from har.training.plots import style
from har.training.report import write_report


@pytest.fixture(scope="package", autouse=True)
def _coarse_pictures():
    """Drawing at 200 dpi is most of the time of these tests, and none of their matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 40)
        yield


@pytest.fixture(scope="package")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Four runs, one of each model, and the folder of their report."""
    root = tmp_path_factory.mktemp("four")
    runs = [make(root / model, model, with_probabilities=True) for model in reversed(SPEEDS)]
    write_report(runs, root / "out")
    return runs, root / "out"
