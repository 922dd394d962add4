"""Decoder processes that stay from one build of the tests to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from har.pipeline.build.decoder_pool import DecoderPool
from har.pipeline.build.shard_task import DECODERS

MOST_IDLE = 4  # of 0.2 GB each
_close = DecoderPool.close


def _keep(pool: DecoderPool) -> None:
    """As `close`, but for the decoders that can be used again."""
    with pool._changed:
        idle = [(key, decoder) for key, decoders in pool._idle.items() for decoder in decoders]
        usable = [pair for pair in idle if not pair[1]._is_stopped][-MOST_IDLE:]
        pool._idle.clear()
        for key, decoder in idle:
            if (key, decoder) in usable:
                pool._idle[key].append(decoder)
            else:
                decoder.kill()
        pool._is_stopped, pool.max_decoders = False, None


@contextlib.contextmanager
def keep_decoders() -> Iterator[None]:
    """Within it the end of a build leaves its decoders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecoderPool, "close", _keep)
        yield
    DECODERS.close()


def use_new_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the kept ones; builds start their own from now on."""
    _close(DECODERS)
    monkeypatch.setattr(DecoderPool, "close", _close)
