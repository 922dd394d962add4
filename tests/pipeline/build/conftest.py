"""Small data sets and the shard sets built of them; read them, do not change them."""

from pathlib import Path

import made_videos
import pytest
from made_builds import build


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes x 4 groups x 2 clips, 64x48, no two alike."""
    return made_videos.tree(tmp_path_factory.mktemp("build") / "videos")


@pytest.fixture(scope="session")
def built(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shard set of `videos`."""
    out = tmp_path_factory.mktemp("built") / "set"
    build(videos, out)
    return out


@pytest.fixture(scope="session")
def few_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes x 3 groups x 1 clip, one file that is no video, a class list."""
    root = made_videos.tree(tmp_path_factory.mktemp("few") / "videos", groups=3, clips=1)
    (root / "YoYo" / "v_YoYo_g09_c01.avi").write_bytes(b"no video")
    (root / "classInd.txt").write_bytes(b"1 YoYo\r\n2 Punch\r\n")
    return root


@pytest.fixture(scope="session")
def few_built(few_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shard set of `few_videos`."""
    out = tmp_path_factory.mktemp("few_built") / "set"
    build(few_videos, out)
    return out
