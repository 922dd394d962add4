"""The script of har-export --example gives what har-predict gives, without har and torch."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import made_videos
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_predictor import CLASSES
from made_shards import make_run, make_shards

from har.training.cli.results import export_main, predict_main
from har.training.inference.export_contract import build_contract
from har.training.inference.export_example import write_script
from har.training.inference.predictor import Predictor

TOLERANCE = 0.005  # of a probability: Pillow and torch differ by a level of 255 in few pixels
# torch and har cannot be imported in the process that runs the script
ALONE = (
    "import runpy, sys\n"
    "for name in ('torch', 'torchvision', 'har'): sys.modules[name] = None\n"
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])\n"
)


def make(
    folder: Path, stored: int = 12, frames: int = 4, rule: str = "paper", fit: str | None = None,
    size: tuple[int, int] = (36, 48), **sampling: Any,
) -> Path:  # fmt: skip
    """A run whose network takes `frames` of `stored` frames, and is sure of its answers."""
    folder.mkdir()
    clips = make_shards(
        folder / "shards", shape=(stored, *size, 3), classes=CLASSES, clips=1, rule=rule,
        sampling=sampling, fit=fit,
    )  # fmt: skip
    run = make_run(
        folder / "run", clips, model="resnet3d", model_options="width=4", frames=frames
    )  # fmt: skip
    state = torch.load(run / "best.pt", weights_only=True)
    state["model"]["fc.weight"] *= 100
    torch.save(state, run / "best.pt")
    return run


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    paths = {
        "long": made_videos.write(folder / "long.avi", frames=70),
        "short": made_videos.write(folder / "short.avi", frames=5),
    }
    upright = made_videos.encode(folder / "upright.mp4", ["-c:v", "libx264"], frames=40)
    turned = folder / "turned.mp4"
    made_videos.ffmpeg("-i", upright, "-c", "copy", "-metadata:s:v", "rotate=90", turned)
    return paths | {"turned": turned}


def run_script(script: str, video: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Run it with an ONNX Runtime that only keeps what it is fed; -> that."""
    fed: dict[str, np.ndarray] = {}

    class Session:
        def __init__(self, path: Path) -> None:
            assert path == out

        def get_modelmeta(self) -> Any:
            return SimpleNamespace(custom_metadata_map={"classes": json.dumps(CLASSES)})

        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            fed.update(inputs)
            return [np.full((len(inputs["clips"]), 3), 1 / 3)]

    stub = ModuleType("onnxruntime")
    stub.InferenceSession = Session  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", stub)
    monkeypatch.setattr(sys, "argv", ["script", str(video)])
    exec(compile(script, "script", "exec"), {"__file__": str(out.with_name("m_example.py"))})
    return fed["clips"]


@pytest.mark.parametrize("video", ["long", "short", "turned"])
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"stored": 32, "frames": 8}, {"rule": "uniform"}, {"rule": "uniform", "stored": 1,
        "frames": 1}, {"rule": "dense", "stride": 2}, {"rule": "dense", "clips": 3, "stride": 3},
        {"rule": "dense", "fps": 7.5}, {"rule": "dense", "fps": 11.0, "clips": 2},
        {"fit": "crop"}, {"fit": "pad"}, {"fit": "pad", "size": (48, 24)},
        {"fit": "crop", "size": (48, 24)},
    ],
    ids=str,
)  # fmt: skip
def test_it_takes_the_frames_and_pixels_that_har_predict_takes(
    tmp_path: Path, videos: dict, monkeypatch: pytest.MonkeyPatch, settings: dict, video: str
):
    predictor = Predictor(make(tmp_path / "a", **settings), "cpu")
    out = tmp_path / "m.onnx"
    script = write_script(predictor, out)
    found = run_script(script, videos[video], out, monkeypatch)
    expected = predictor.decode_video(videos[video])
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    code = script.split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    text = build_contract(predictor, True, "")["frames"]["text"]
    assert f"S = {settings.get('stored', 12)} frames are chosen of the n that decode" in text


def test_without_torch_it_answers_as_har_predict_does(tmp_path: Path, videos: dict):
    pytest.importorskip("onnxruntime")
    run, out = make(tmp_path / "a", stored=32, frames=8), tmp_path / "m.onnx"
    told = CliRunner().invoke(export_main, [str(run), "-o", str(out), "--example"])
    assert told.exit_code == 0, told.output
    script = tmp_path / "m_example.py"
    assert f"example python {script} VIDEO" in told.output
    assert "numbers 0, 4, 8, 12, 16, 20, 24, 28 of these S" in told.output
    for video in videos.values():
        done = subprocess.run(
            [sys.executable, "-c", ALONE, script, video], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        found = {name: float(p) for p, name in map(str.split, done.stdout.splitlines())}
        words = [str(run), str(video), "--json", "--device", "cpu"]
        answer = json.loads(CliRunner().invoke(predict_main, words).stdout)[0]["top"]
        assert found == pytest.approx(
            {row["class"]: row["probability"] for row in answer}, abs=TOLERANCE
        )
    assert max(found.values()) > 0.5  # an answer, not 1/3 of each
