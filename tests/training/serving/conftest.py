"""What tests of har-serve share."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="module")
def _gradio() -> Iterator[None]:
    """Imported here, which takes seconds, and not by processes that only collect these tests. It
    makes event loops in this thread and closes none; a later test would be blamed."""
    pytest.importorskip("gradio")
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.get_event_loop().close()
        asyncio.set_event_loop(None)
        gc.collect()


@pytest.fixture(scope="module")
def clip(synthetic_videos: Path) -> bytes:
    return sorted(synthetic_videos.rglob("*.avi"))[0].read_bytes()
