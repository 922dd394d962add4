"""The shard set and the run that the tests of training share."""

import pytest
from made_shards import make_shards
from tiny_train import train


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folder of a set of 30 clips of 4x20x24 in three classes: 18 train, 6 val, 6 test clips."""
    return make_shards(tmp_path_factory.mktemp("training") / "set").root


@pytest.fixture(scope="session")
def trained(shards, tmp_path_factory):
    """Run folder of a ResNet3D that was trained for two epochs; read it, do not change it."""
    out = tmp_path_factory.mktemp("trained") / "run"
    result = train(shards, out)
    assert result.exit_code == 0, result.output
    return out
