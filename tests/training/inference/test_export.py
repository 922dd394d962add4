"""har-export: the file says what the checkpoint says, and tells how it wants to be fed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_predictor import CLASSES, make_video_run

from har.training.cli.results import export_main
from har.training.inference import export
from har.training.inference.export_wrapper import ExportWrapper
from har.training.inference.predictor import Predictor


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video_run(tmp_path_factory.mktemp("export") / "a", "resnet3d")


def _pixels(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, 6, 36, 48, 3), np.uint8)


@pytest.mark.parametrize("size", [(16, 16), (36, 48), (30, 17)])
def test_preprocessing_inside_gives_the_pixels_that_prediction_gives(run: Path, size: tuple):
    predictor = Predictor(run, "cpu")
    resize = (max(18, size[0]), max(24, size[1]))
    predictor.transform = replace(predictor.transform, crop_size=size, resize_size=resize)
    network = ExportWrapper(predictor, True)
    pixels = _pixels(3)
    found = network.preprocess(torch.from_numpy(pixels))
    assert torch.allclose(found, predictor.preprocess(pixels), atol=1e-5)


@pytest.mark.parametrize("inside", [True, False])
def test_a_pt2_file_answers_any_batch_as_the_checkpoint_does(
    run: Path, tmp_path: Path, inside: bool
):
    out = tmp_path / "deep" / "m.pt2"
    made = export.export_run(run, out, preprocessing=inside)
    assert made.max_difference is not None
    assert made.max_difference <= export.TOLERANCE
    files = {"har.json": ""}
    network = torch.export.load(out, extra_files=files).module()
    assert json.loads(files["har.json"]) == made.contract
    predictor = Predictor(run, "cpu")
    for batch in (1, 3, 7):
        pixels = _pixels(batch, seed=batch)
        given = torch.from_numpy(pixels) if inside else predictor.preprocess(pixels)
        logits, probabilities = network(given)
        assert torch.allclose(logits.softmax(1), probabilities)
        assert probabilities.detach().numpy() == pytest.approx(
            predictor.predict_clips(pixels), abs=1e-5
        )
    assert json.loads((out.parent / "m.pt2.json").read_text()) == made.contract
    assert not list(out.parent.glob(".*"))


_OTHERS = ("r2plus1d", "r3d", "convlstm")


@pytest.mark.parametrize(
    "model", ["resnet3d", *(pytest.param(m, marks=pytest.mark.slow) for m in _OTHERS)]
)
def test_an_onnx_file_answers_any_batch_in_onnx_runtime(tmp_path: Path, model: str):
    onnxruntime = pytest.importorskip("onnxruntime")
    run = make_video_run(tmp_path / "a", model)
    out = tmp_path / "m.onnx"
    made = export.export_run(run, out)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    predictor = Predictor(run, "cpu")
    for batch in (1, 4):
        pixels = _pixels(batch, seed=batch)
        logits, probabilities = session.run(None, {"clips": pixels})
        assert logits.shape == (batch, 3)
        assert probabilities == pytest.approx(predictor.predict_clips(pixels), abs=1e-4)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == list(CLASSES)
    assert json.loads(said["har"]) == made.contract


def test_an_onnx_file_names_the_batch_and_onnx_runtime_warns_of_nothing(tmp_path: Path, capfd):
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    run, out = make_video_run(tmp_path / "a", "convlstm"), tmp_path / "m.onnx"
    export.export_run(run, out)
    graph = onnx.load(out).graph
    shapes = [v.type.tensor_type.shape.dim for v in (*graph.input, *graph.output)]
    assert [shape[0].dim_param for shape in shapes] == ["batch"] * 3
    assert not {d.dim_param for v in graph.value_info for d in v.type.tensor_type.shape.dim} & {
        "s0", "s7", "s77"
    }  # fmt: skip
    writes = {"ScatterND", "ScatterElements", "CastLike"}
    assert not writes & {node.op_type for node in graph.node}
    assert len(graph.node) < 16 * 6 * 3
    capfd.readouterr()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2  # warnings
    session = onnxruntime.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == "batch"
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("model", _OTHERS)
def test_every_network_exports_to_pt2(tmp_path: Path, model: str):
    made = export.export_run(make_video_run(tmp_path / "a", model), tmp_path / "m.pt2")
    assert made.max_difference is not None
    assert made.max_difference <= export.TOLERANCE


def test_the_contract_says_how_to_feed_the_file(run: Path):
    predictor = Predictor(run, "cpu")
    inside = export.build_contract(predictor, True, "0" * 64)
    assert inside["input"]["shape"] == ["batch", 6, 36, 48, 3]
    assert inside["classes"] == list(CLASSES)
    assert inside["sampling"] == {"rule": "paper"}
    assert inside["frame_indices"] == list(range(6))
    assert inside["input"]["channels"] == "RGB"
    assert inside["resize"] | {"text": ""} == {
        "height": 36, "width": 48, "fit": "squeeze", "text": ""
    }  # fmt: skip
    assert inside["frames"]["rule"] == "paper"
    assert {"torch", "onnx"} <= set(inside["versions"])
    outside = export.build_contract(predictor, False, "0" * 64)
    assert outside["input"]["shape"] == ["batch", 3, 6, 16, 16]
    assert outside["preprocessing"]["centre_crop"] == [16, 16]
    json.dumps(outside)


def test_a_file_that_says_something_else_is_never_left_behind(
    run: Path, tmp_path: Path, monkeypatch
):
    before = tmp_path / "m.pt2"
    before.write_text("mine")
    monkeypatch.setattr(ExportWrapper, "reference", lambda self, clips: np.zeros((len(clips), 3)))
    told = CliRunner().invoke(export_main, [str(run), "-o", str(before)])
    assert told.exit_code == 2
    assert "does not say what the checkpoint says" in told.output
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]
    assert before.read_text() == "mine"


def test_another_ending_a_missing_package_and_a_missing_run_are_one_sentence(
    run: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    for folder, name, text in (
        (run, "m.pth", "neither .onnx nor .pt2"),
        (tmp_path, "m.pt2", "there is no checkpoint"),
        (run, "m.onnx", "pip install 'har-ucf101[export]'"),
        (run, "m.pt2 --example", "give -o a name that ends in .onnx"),
    ):
        told = CliRunner().invoke(export_main, [str(folder), "-o", *name.split()])
        assert (told.exit_code, text in told.output) == (2, True)


def test_without_a_runtime_it_says_that_nothing_ran_the_file(run: Path, tmp_path: Path):
    contract = export.build_contract(Predictor(run, "cpu"), True, "")
    made = export.ExportResult(tmp_path / "m.onnx", 1, None, "", contract, "run/best.pt")
    assert "not run: ONNX Runtime is not installed" in export.describe_export(made)
