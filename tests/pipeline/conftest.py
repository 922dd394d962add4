from collections.abc import Iterator

import pytest

from har.pipeline.build.decoder_pool import DecoderPool
from har.pipeline.build.shard_task import DECODERS


@pytest.fixture(scope="module")
def kept_decoders() -> Iterator[None]:
    """From one build to the next: starting one takes a second. A hook needs one of its own: another
    time limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecoderPool, "close", lambda self: None)
        yield
    DECODERS.close()
