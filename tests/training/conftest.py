"""What the tests of training share: a shard set, a run, and pictures that cost little."""

from pathlib import Path

import pytest
from made_shards import make_shards
from tiny_train import train

from har.training import loop
from har.training.plots import plot_model_curves


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a set of 30 clips of 4x20x24 in three classes: 18 train, 6 val, 6 test clips."""
    return make_shards(tmp_path_factory.mktemp("training") / "set").root


@pytest.fixture(scope="session")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a ResNet3D that was trained for two epochs; read it, do not change it."""
    out = tmp_path_factory.mktemp("trained") / "run"
    result = train(shards, out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session", autouse=True)
def _quick_pictures(quick_pictures: None) -> None:
    """Everywhere here."""


@pytest.fixture
def drawn_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw their curves, as they do for a user."""
    monkeypatch.setattr(loop, "plot_model_curves", plot_model_curves)
