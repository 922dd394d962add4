"""What tests of har-serve share."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="module")
def _event_loops_that_gradio_leaves_open() -> Iterator[None]:
    """Gradio makes event loops in this thread and closes none; a later test would be blamed."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.get_event_loop().close()
        asyncio.set_event_loop(None)
        gc.collect()


@pytest.fixture(scope="module")
def clip(synthetic_videos: Path) -> bytes:
    return sorted(synthetic_videos.rglob("*.avi"))[0].read_bytes()
