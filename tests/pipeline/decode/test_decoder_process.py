"""A child process for files of strangers: a hang, a crash or a flood costs only the child."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_videos
import numpy as np
import pytest

from har.pipeline.decode import DecoderError, DecoderProcess, VideoDecodeError, decode_clip
from har.pipeline.decode.decoder_process import (
    DecoderDiedError,
    DecoderFunctionError,
    DecoderStartError,
    DecoderStoppedError,
    decode_into,
)


def work(path: str, out: np.ndarray, *args: Any) -> Any:
    """What the child of these tests does, by name."""
    if path == "fault":
        raise VideoDecodeError(f"{path} has no frame that decodes.")
    if path == "no_memory":
        return len(bytearray(6 << 30))
    if path == "mistake":
        raise KeyError(args[0])
    if path == "hang":
        time.sleep(60)
    if path == "crash":
        os.abort()
    out[:] = len(path)
    return [os.getpid(), *args]


@pytest.fixture(scope="module")
def _importable() -> Iterator[None]:
    """The child imports this module by its name."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = (
        f"{Path(__file__).parent}:{Path(made_videos.__file__).parent}:{before}"
    )
    yield
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def process(_importable: None) -> Iterator[DecoderProcess]:
    decoder = DecoderProcess(work, num_bytes=4, timeout=1.5, memory_limit=4 << 30)
    yield decoder
    decoder.kill()


def test_a_value_and_pixels_come_from_another_process_which_is_kept(process: DecoderProcess):
    (pid, argument), out = process.call("abc", {"size": [2, 3]})
    assert pid != os.getpid()
    assert (argument, out.tolist()) == ({"size": [2, 3]}, [3, 3, 3, 3])
    assert process.call("x")[0] == [pid]


def test_two_files_may_be_queued_and_are_answered_in_order(process: DecoderProcess):
    for path in ("a", "bb"):
        process.submit(path, path)
    for path in ("a", "bb"):
        value, out = process.result()
        assert (value[1], out[0]) == (path, len(path))


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("fault", DecoderError, r"^it has no frame that decodes\.$"),
        ("mistake", DecoderFunctionError, "KeyError: 'where'"),
        ("hang", DecoderError, r"^no answer within 1\.5 s\.$"),
        ("crash", DecoderDiedError, r"^the decoder died of it \(signal 6\)\.$"),
        pytest.param(
            "no_memory", DecoderError, r"^it cannot be decoded \(MemoryError\)\.$",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux limits memory"),
        ),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_error_and_the_next_file_is_decoded(
    process: DecoderProcess, path: str, error: type[Exception], says: str
):
    with pytest.raises(error, match=says):
        process.call(path, "where")
    assert process.call("next")[1].tolist() == [4, 4, 4, 4]


def test_a_decoder_that_was_stopped_starts_no_child():
    decoder = DecoderProcess(work, num_bytes=4, timeout=5)
    decoder.stop()  # before its first video: a build that is stopped while it starts
    with pytest.raises(DecoderStoppedError):
        decoder.submit("v.avi")


def test_a_child_that_cannot_start_says_how_to_see_why(monkeypatch: pytest.MonkeyPatch):
    absent: Callable[..., Any] = lambda path, out: None  # noqa: E731
    monkeypatch.setattr(absent, "__module__", "no_such_module")
    with pytest.raises(DecoderStartError, match="import no_such_module"):
        DecoderProcess(absent, num_bytes=1, timeout=5).call("v.avi")


def test_clips_come_through_it_as_they_are_decoded_here(tmp_path: Path):
    path = made_videos.write(tmp_path / "v.avi")
    decoder = DecoderProcess(decode_into, num_bytes=3 * 4 * 24 * 32 * 3, timeout=60)
    sampler = {"rule": "dense", "frames": 4, "stride": 2, "clips": 3}
    facts, out = decoder.call(path, sampler, (24, 32), False)
    pixels = out.reshape(3, 4, 24, 32, 3).copy()
    decoder.kill()
    middle = decode_clip(path, rule="dense", frames=4, size=(24, 32))
    np.testing.assert_array_equal(pixels[1], middle.pixels)
    assert tuple(facts[1]["frame_indices"]) == middle.frame_indices
    assert (facts[1]["num_decoded"], facts[1]["fps"]) == (40, 25.0)
