"""har-shards bench: the figures it names, measured on a small set."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from har.pipeline.benchmark import build_bench, decoders


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `bench`."""

    def missing() -> decoders.Contestant:
        raise ImportError("No module named 'torchcodec'")

    monkeypatch.setattr(decoders, "_torchcodec", missing)
    monkeypatch.setattr(decoders, "_opencv", lambda _: missing())


@pytest.mark.usefixtures("alone")
def test_decoding_is_compared_with_its_ceiling(synthetic_videos: Path) -> None:
    paths = sorted(synthetic_videos.rglob("*.avi"))[:4]
    results, usable = decoders.measure(paths, rounds=1)
    assert usable == paths
    assert (results["videos"], results["left_out"]) == (4, 0)
    assert 0 < results["ratio.bare_decode"] < 1.5
    assert results["unable"]["torchcodec"] == "No module named 'torchcodec'"
    assert "ratio.torchcodec" not in results
    more = {
        "build_1": 1.0, "build_2": 2.0, "decode_2": 2.2,
        "scaling_2": 2.0, "ratio.build_of_decode": 0.9,
    }  # fmt: skip
    table = build_bench._table(results | more)
    assert "decoding the needed packets" in table
    assert "2.00x of 1 core" in table
    assert "90%" in table
    alone = {"build_1": 1.0, **dict.fromkeys(list(more)[1:])}
    assert "2 cores" not in build_bench._table(results | alone)


@pytest.mark.usefixtures("alone")
def test_videos_that_cannot_be_read_are_counted_or_refused(
    synthetic_videos: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"x")
    good = next(synthetic_videos.rglob("*.avi"))
    results, usable = decoders.measure([good, bad], rounds=1)
    assert (results["left_out"], usable) == (1, [good])
    with pytest.raises(decoders.BenchError, match="no video that every contestant can read"):
        decoders.measure([bad], rounds=1)


def test_contestants_take_turns_and_are_charged_for_cpu_time() -> None:
    order: list[str] = []

    def busy(_: Path) -> int:
        order.append("busy")
        end = time.process_time() + 0.002
        while time.process_time() < end:
            pass
        return 16

    def waiting(_: Path) -> int:
        order.append("waiting")
        time.sleep(0.002)
        return 16

    videos = [Path(f"{number}.avi") for number in range(2 * decoders.TURN)]
    spent = decoders._round({"busy": busy, "waiting": waiting}, videos, 0)
    turns = order[:: decoders.TURN]
    assert turns == ["busy", "waiting", "waiting", "busy"]
    assert spent["busy"][0] > 0.04 > spent["waiting"][0]
    assert min(spent["busy"][1], spent["waiting"][1]) > 0.04


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")
def test_a_build_on_one_core_stays_there_with_what_it_starts() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    program = "import os; print(*os.sched_getaffinity(0))"
    with build_bench._on([core]):
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert said.stdout.split() == [str(core).encode()]
    assert os.sched_getaffinity(0) == before


def test_too_little_scratch_space_is_said_before_anything_is_timed(
    synthetic_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_bench, "BUILD_CLIPS", 10**9)
    with pytest.raises(decoders.BenchError, match=r"need 1054.* GB .*: set TMPDIR to a"):
        build_bench.run(synthetic_videos, rounds=1)


@pytest.mark.slow
def test_the_whole_benchmark_runs(synthetic_videos: Path) -> None:
    table = build_bench.run(synthetic_videos, rounds=1)
    assert "whole build, 2 cores" in table
