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
def _no_bench_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `bench`."""

    def missing(*_: object) -> decoders.Candidate:
        raise ImportError("No module named 'torchcodec'")

    monkeypatch.setattr(decoders, "_torchcodec", missing)
    monkeypatch.setattr(decoders, "_opencv", missing)


@pytest.mark.usefixtures("_no_bench_extra")
def test_decoding_is_compared_with_its_limit(synthetic_videos: Path) -> None:
    paths = sorted(synthetic_videos.rglob("*.avi"))[:4]
    results, videos = decoders.measure(paths, rounds=1)
    assert videos == paths
    assert (results["videos"], results["videos_left_out"]) == (4, 0)
    assert 0 < results["ratio.decode_only"] < 1.5
    assert results["unavailable"]["torchcodec"] == "No module named 'torchcodec'"
    assert "ratio.torchcodec" not in results
    builds = {
        "build_1": 1.0, "build_2": 2.0, "decode_2": 2.2,
        "scaling_2": 2.0, "ratio.build_of_decode": 0.9,
    }  # fmt: skip
    table = build_bench._table(results | builds)
    for text in ("decoding the needed packets", "2.00x of 1 core", "90%"):
        assert text in table
    one_core = {**dict.fromkeys(builds), "build_1": 1.0}
    assert "2 cores" not in build_bench._table(results | one_core)


@pytest.mark.usefixtures("_no_bench_extra")
def test_videos_that_cannot_be_read_are_counted_or_refused(
    synthetic_videos: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"x")
    good = next(synthetic_videos.rglob("*.avi"))
    results, videos = decoders.measure([good, bad], rounds=1)
    assert (results["videos_left_out"], videos) == (1, [good])
    with pytest.raises(decoders.BenchError, match="no video that every candidate can read"):
        decoders.measure([bad], rounds=1)


def test_candidates_take_turns_and_are_charged_for_cpu_time() -> None:
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
    seconds = decoders.time_round({"busy": busy, "waiting": waiting}, videos, 0)
    assert order[:: decoders.TURN] == ["busy", "waiting", "waiting", "busy"]
    assert seconds["busy"][0] > 0.04 > seconds["waiting"][0]
    assert min(seconds["busy"][1], seconds["waiting"][1]) > 0.04


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")
def test_a_build_on_one_core_stays_there_with_what_it_starts() -> None:
    before = os.sched_getaffinity(0)
    program = "import os; print(*os.sched_getaffinity(0))"
    with build_bench.cpu_affinity([min(before)]):
        child = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert child.stdout.split() == [str(min(before)).encode()]
    assert os.sched_getaffinity(0) == before


def test_too_little_scratch_space_is_reported_before_anything_is_timed(
    synthetic_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_bench, "BUILD_CLIPS", 10**9)
    with pytest.raises(decoders.BenchError, match=r"need 1054.* GB .*: set TMPDIR to a"):
        build_bench.run(synthetic_videos, rounds=1)


@pytest.mark.slow
def test_the_whole_benchmark_runs(synthetic_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_bench, "BUILD_CLIPS", 240)
    assert "whole build, 2 cores" in build_bench.run(synthetic_videos, rounds=1)
