"""What a build says before it starts, and once it has seen some videos."""

import re
from pathlib import Path

import made_videos
import pytest
from made_builds import build

from har.pipeline.build import RunOptions, estimate
from har.pipeline.build.estimate import TimeEstimate, describe_space


@pytest.mark.parametrize(
    ("videos", "classes", "num_bytes", "free", "text"),
    [
        (
            13_320, 101, 14_040_000_000, 60_200_000_000,
            "13,320 videos of 101 classes: about 14.0 GB, 60.2 GB free",
        ),
        (1, 1, 1_054_000, None, "1 video of 1 class: about 1.1 MB"),
        (2, 1, 25_600, 61_440, "2 videos of 1 class: about 25.6 kB, 61.4 kB free"),
    ],
)  # fmt: skip
def test_space(videos: int, classes: int, num_bytes: int, free: int | None, text: str) -> None:
    assert describe_space(videos, classes, num_bytes, free) == text


@pytest.mark.parametrize(
    ("num_videos", "workers", "said"),
    [
        # 0.5 s a video once the first `workers` are done
        (13_320, 2, ["about 111 min on 2 cores, from the first 20 videos"]),
        (200, 1, ["about 100 s on 1 core, from the first 20 videos"]),
        (100_000, 16, ["about 13.9 h on 16 cores, from the first 64 videos"]),
        (20, 2, []),  # it is nearly done
        (1, 1, []),
        (13_320, None, []),  # elsewhere
    ],
)
def test_time_from_the_first_videos(
    num_videos: int, workers: int | None, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(estimate.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(estimate.os, "cpu_count", lambda: 64)
    lines: list[str] = []
    timed = TimeEstimate(num_videos, workers, lines.append)
    for number in range(min(num_videos, 200)):
        now[0] += 3.0 if number < (workers or 1) else 0.5  # the first ones start their decoders
        timed.advance()
    assert lines == said


def test_a_build_says_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate, "_MIN_VIDEOS", 2)
    videos = made_videos.tree(tmp_path / "videos", groups=4, clips=1)
    build(videos, tmp_path / "set", run_options=RunOptions(workers=1))
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"8 videos of 2 classes: about 110\.6 kB, [\d.]+ [GM]B free", lines[0])
    assert re.fullmatch(r"about \d+ s on 1 core, from the first 4 videos", lines[1])
