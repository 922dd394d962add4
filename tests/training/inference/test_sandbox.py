"""A process of its own: values and errors come back, a hang or a crash costs only the child."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import pytest

from har.training.inference.sandbox import Sandbox, SandboxError


@pytest.fixture(scope="module")
def apart() -> Iterator[Sandbox]:
    one = Sandbox(4 << 30)
    yield one
    one.close()


def test_a_value_comes_from_another_process_which_is_kept(apart: Sandbox):
    first = apart.call(os.getpid, seconds=30)
    assert first != os.getpid()
    assert apart.call(os.getpid, seconds=30) == first


def test_an_error_of_the_function_passes_through(apart: Sandbox):
    with pytest.raises(ValueError, match="invalid literal"):
        apart.call(int, "x", seconds=30)


def test_a_hang_and_a_crash_cost_only_the_child(apart: Sandbox):
    start = time.monotonic()
    with pytest.raises(SandboxError, match=r"longer than 0\.5 s"):
        apart.call(time.sleep, 60, seconds=0.5)
    assert time.monotonic() - start < 20
    assert apart.call(abs, -3, seconds=30) == 3
    with pytest.raises(SandboxError, match="crashed"):
        apart.call(os.abort, seconds=30)
    assert apart.call(abs, -4, seconds=30) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_the_child_cannot_take_all_memory(apart: Sandbox):
    with pytest.raises(MemoryError):
        apart.call(bytearray, 6 << 30, seconds=30)
