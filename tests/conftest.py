"""Fixtures that more than one test file needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as har-export does


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder with `ucf101/`, `odd/` and `ucfTrainTestlist/`; skips where it is absent."""
    project = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("HAR_REAL_CLIPS", project.parent / "shared" / "real"))
    if not (folder / "ucf101").is_dir():
        pytest.skip(f"no real clips: {folder}/ucf101 is missing (set HAR_REAL_CLIPS)")
    return folder


@pytest.fixture(scope="session")
def synthetic_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic set of 6 classes x 5 groups x 1 clip; read it, do not change it."""
    from har.pipeline import synthetic  # not above: the GPU tests run where there is no PyAV

    folder = tmp_path_factory.mktemp("synthetic") / "videos"
    synthetic.write_videos(folder, groups=5, clips=1)
    return folder
