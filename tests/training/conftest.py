"""The shard set that the tests of training share."""

import pytest
from made_shards import make_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folder of a set of 30 clips of 4x20x24 in three classes: 18 train, 6 val, 6 test clips."""
    return make_shards(tmp_path_factory.mktemp("training") / "set").root
