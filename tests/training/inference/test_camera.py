"""A camera: FFmpeg's own test picture stands in for one, through the same device input."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_predictor import make_video_run

from har.training.cli.results import predict_main
from har.training.inference import camera


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "testsrc=size=64x48:rate=25:duration=3"
    monkeypatch.setattr(camera, "device", lambda number: (source, "lavfi"))


@pytest.mark.usefixtures("pretend")
def test_a_camera_is_read_frame_by_frame():
    frames = list(islice(camera.frames(0), 5))
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert frames[0].rgb().shape == (48, 64, 3)


@pytest.mark.usefixtures("pretend")
def test_each_window_of_a_camera_is_a_line(tmp_path: Path):
    run = make_video_run(tmp_path / "a")
    given = [str(run), "--camera", "0", "--window", "1", "--hop", "1"]
    told = CliRunner().invoke(predict_main, given)
    assert told.exit_code == 0, told.output
    assert len(told.output.splitlines()) == 3
    assert told.output.splitlines()[1].split()[:4] == ["1.00", "to", "2.00", "s"]
    lines = CliRunner().invoke(predict_main, [*given, "--json"]).output.splitlines()
    assert [json.loads(line)["start"] for line in lines] == [0, 1, 2]


def test_without_a_camera_there_is_one_sentence(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(camera, "device", lambda number: (f"/dev/no-video{number}", "v4l2"))
    told = CliRunner().invoke(predict_main, [str(make_video_run(tmp_path / "a")), "--camera", "0"])
    assert told.exit_code == 2
    assert "there is no camera 0 here (/dev/no-video0 does not exist)" in told.output
    assert "Traceback" not in told.output


def test_a_device_that_cannot_be_read_says_so(tmp_path: Path, monkeypatch):
    odd = tmp_path / "device"
    odd.write_text("no camera")
    monkeypatch.setattr(camera, "device", lambda number: (str(odd), "avi"))
    monkeypatch.setattr(camera.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(camera.CameraError, match="cannot be read through FFmpeg"):
        next(camera.frames(0))
    with pytest.raises(camera.CameraError, match="--camera -1"):
        next(camera.frames(-1))
