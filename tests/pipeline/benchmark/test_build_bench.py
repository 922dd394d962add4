"""har-shards bench: the figures it names, measured on a small set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import made_videos
import numpy as np
import pytest

from har.pipeline.benchmark import BenchError, build_bench, decoders


@pytest.fixture
def _no_bench_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `bench`."""

    def missing(*_: object, **__: object) -> decoders.Candidate:
        raise ImportError("No module named 'torchcodec'")

    monkeypatch.setattr(decoders, "_torchcodec", missing)
    monkeypatch.setattr(decoders, "_opencv", missing)


@pytest.mark.usefixtures("_no_bench_extra")
def test_each_group_of_videos_is_compared_with_what_can_read_it(
    synthetic_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three AVIs, one GIF (which is decoded whole) and what is no video; a candidate that reads
    AVIs alone, and gives the wrong frames of one."""
    for number, path in enumerate(sorted(synthetic_videos.rglob("*.avi"))[:3]):
        shutil.copy(path, tmp_path / f"{number}.avi")
    made_videos.write(tmp_path / "a.mkv", "grey.mkv")
    (tmp_path / "bad.avi").write_bytes(b"x")
    paths = sorted(tmp_path.iterdir())

    def picky(path: Path) -> np.ndarray:
        if path.suffix != ".avi":
            raise ValueError("/home/me/a.mkv: no AVI")
        return decoders.har(path) if path.stem != "1" else 255 - decoders.har(path)

    candidates, missing = decoders.find_candidates()
    assert missing["torchcodec"] == missing["opencv_seek"] == "No module named 'torchcodec'"
    groups, num_unreadable = decoders.make_groups(paths, candidates | {"picky": picky})
    assert num_unreadable == 1
    decoders.measure(groups, rounds=1)
    avi, mkv = (group.results() for group in groups)
    assert (avi["codec"], avi["container"], avi["size"]) == ("mpeg4", "avi", "up to 240p")
    assert (avi["videos"], avi["videos_found"], avi["other_frames"]) == (3, 3, {"picky": 1})
    assert 0 < avi["ratio.decode_only"] < 1.5
    assert set(avi["clips_per_core_s"]) == {"har", "decode_only", "picky"}
    assert (mkv["codec"], mkv["container"], mkv["videos"]) == ("ffv1", "matroska", 1)
    assert mkv["unavailable"] == {"picky": "a.mkv: no AVI"}
    assert "ratio.picky" not in mkv
    results = {
        **avi, "rounds": 1, "videos_unreadable": 1, "groups": [avi, mkv], "unavailable": missing,
        "machine": "M", "versions": {"av": "1"},
    }  # fmt: skip
    builds = {
        "build_1": 1.0, "build_2": 2.0, "decode_2": 2.2,
        "scaling_2": 2.0, "ratio.build_of_decode": 0.9,
    }  # fmt: skip
    monkeypatch.setitem(build_bench._TITLES, "picky", "picky")
    table = build_bench._table(results | builds)
    for text in (
        "decoding the needed packets", "mpeg4 avi up to 240p: 3 of 3 videos", "other frames in 1",
        "left out: a.mkv: no AVI", "torchcodec's own resize: No module", "1 videos that cannot",
        "2.00x of 1 core", "90%",
    ):  # fmt: skip
        assert text in table
    one_core = {**dict.fromkeys(builds), "build_1": 1.0}
    assert "2 cores" not in build_bench._table(results | one_core)
    assert "whole build" not in build_bench._table(results)
    with pytest.raises(BenchError, match="no video that har can read"):
        decoders.make_groups([tmp_path / "bad.avi"], candidates)


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


def test_a_folder_without_videos_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=f"no video under {tmp_path}: give a folder"):
        build_bench.run(tmp_path)


def test_too_little_scratch_space_is_reported_before_anything_is_timed(
    synthetic_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_bench, "BUILD_CLIPS", 10**9)
    with pytest.raises(BenchError, match=r"need 1054.* GB .*: set TMPDIR to a"):
        build_bench.run(synthetic_videos, rounds=1)


@pytest.mark.slow
def test_the_whole_benchmark_runs(synthetic_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_bench, "BUILD_CLIPS", 240)
    results = json.loads(build_bench.run(synthetic_videos, rounds=1, as_json=True))
    assert results["scaling_2"] > 0
    assert results["versions"].keys() >= {"av", "libavcodec", "torch"}
    assert [group["codec"] for group in results["groups"]] == ["mpeg4"]
    table = build_bench.run(synthetic_videos, rounds=1, with_builds=False)
    assert "mpeg4 avi" in table
    assert "whole build" not in table
