"""The example of docs/models.md goes the whole way: trained, evaluated, predicted, exported,
served, summed up, timed; what does not fit is refused before any work."""

import json
from pathlib import Path

import pytest
import torch
from made_shards import make_run
from own_model import NAME, forget_project, write_project
from tiny_train import har_eval, har_train, message, metrics_of, run_command

from har.shards.format import load_manifest
from har.training.cli.models import bench_train_main, models_main
from har.training.cli.pretrain import pretrain_main
from har.training.cli.results import eval_main, export_main, predict_main, report_main
from har.training.config import Config
from har.training.inference import export
from har.training.inference.predictor import Predictor
from har.training.runtime import checkpoint
from har.training.serving.video_service import VideoService

SETTINGS = [
    "--frames", 4, "--size", 16, "--batch-size", 6, "--epochs", 1, "--device", "cpu",
    "--precision", "fp32",
]  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    return write_project(tmp_path, monkeypatch)


def train(shards, *words, model=NAME):
    return har_train("--shards", shards, "--model", model, *SETTINGS, *words)


def run_soundly(command, *words):
    result = run_command(command, *words)
    assert result.exit_code == 0, result.output
    return result


def test_an_own_model_goes_the_whole_way(shards, project, synthetic_videos, monkeypatch):
    result = train(shards, "--model-options", "width=8", "--preset", "modern", "--eval-train")
    assert result.exit_code == 0, result.output
    run = project / "runs" / "Tiny"
    state = checkpoint.load(run / "best.pt")
    assert state["model_name"] == NAME
    assert state["model_options"] == {"width": 8, "dropout": 0.2}
    forget_project(monkeypatch)  # the commands below find it by the name in the run
    assert har_train("--resume", run, "--epochs", 2).exit_code == 0
    assert len(metrics_of(run)) == 2
    assert NAME in run_soundly(eval_main, run, "--device", "cpu").output
    run_soundly(report_main, run, "-o", "report", "--cards")
    assert NAME in (run / "MODEL_CARD.md").read_text()

    video = sorted(synthetic_videos.rglob("*.avi"))[0]
    words = ["--json", "--device", "cpu", "--cam", "where.gif"]
    answer = json.loads(run_soundly(predict_main, run, video, *words).stdout)[0]
    predictor = Predictor(run, "cpu")
    expected = predictor.top_classes(predictor.predict_video(video), 1)[0]
    assert answer["top"][0]["class"] == expected[0]
    assert Path("where.gif").stat().st_size
    service = VideoService(predictor)
    upload = service.upload_dir / "a" / video.name
    upload.parent.mkdir()
    upload.write_bytes(video.read_bytes())
    _, top, html = service.answer({"path": str(upload)})
    service.close()
    assert set(top) == set(predictor.classes)
    assert "with its Grad-CAM" in html

    made = export.export_run(run, project / "tiny.pt2")
    assert made.max_difference <= export.TOLERANCE
    assert made.contract["model"] == NAME


def test_a_class_that_has_changed_since_is_one_sentence(shards, project, monkeypatch):
    assert train(shards).exit_code == 0
    text = Path("mynet.py").read_text().replace("width, 3, 2, 1)", "width, 1, 2, 0)")
    Path("mynet.py").write_text(text)
    forget_project(monkeypatch)
    for result in (
        har_train("--resume", "runs/Tiny", "--epochs", 2),
        har_eval("runs/Tiny", "--device", "cpu"),
    ):
        assert result.exit_code == 2
        assert "the checkpoint does not hold the weights of mynet:Tiny" in message(result)
        assert "features.3.weight" in message(result)


def test_an_own_model_is_exported_to_onnx(shards, project):
    pytest.importorskip("onnxruntime")
    assert train(shards).exit_code == 0
    assert (
        "differ from the checkpoint's by"
        in run_soundly(export_main, "runs/Tiny", "-o", "tiny.onnx").output
    )


@pytest.mark.slow
def test_an_own_model_is_summed_up_and_timed(project):
    words = [NAME, "--frames", 4, "--size", 32, "--batch-size", 2, "--model-options", "width=8"]
    summary = json.loads(run_soundly(models_main, "show", *words, "--json").stdout)
    assert [row["name"] for row in summary["layers"]] == [
        "features.0", "features.1", "features.3", "classifier",
    ]  # fmt: skip
    assert summary["parameters"] == 3 * 8 * 25 + 8 + 16 + 8 * 8 * 27 + 8 + 101 * 8 + 101
    drawn = run_command(models_main, "show", *words, "--plot", "x.png")
    assert "only the four models have a drawing, mynet:Tiny not" in drawn.output
    words = ["--frames", 4, "--size", 32, "--batch-size", 2, "--steps", 1, "--rounds", 1]
    made = run_soundly(
        bench_train_main, "--model", "mynet:make_tiny", *words, "--json",
        "--precision", "fp32", "--device", "cpu",
    )  # fmt: skip
    (line,) = json.loads(made.stdout)
    assert (line["model"], line["baseline"]) == (
        "mynet:make_tiny",
        "mynet:make_tiny itself, float32",
    )
    assert line["ratio.baseline"] > 0
    refused = run_command(bench_train_main, "--model", "vgg")
    assert "choose one of resnet3d" in refused.output


@pytest.mark.parametrize(
    ("model", "more", "text"),
    [
        ("nonet:Tiny", [], "there is no module 'nonet'"),
        ("mynet:Missing", [], "the module mynet has no 'Missing'"),
        (NAME, ["--model-options", "depth=3"], "unexpected keyword argument 'depth'"),
        (NAME, ["--input", "diff"], "--input diff: mynet:Tiny has no option input; leave it out"),
        (NAME, ["--drop-path", 0.1], "--drop-path 0.1: mynet:Tiny has no option drop_path"),
        ("mynet:make_tiny", ["--dropout", 0.1], "has no option dropout"),
        (NAME, ["--freeze", "layer1"], "choose one of none, features, dropout"),
        (NAME, ["--weights", "kinetics400"], "no kinetics400 weights for mynet:Tiny"),
        ("mynet:Wrong", ["--model-options", "early=False"], "early must be true or false, got 'Fa"),
        ("mynet:Headless", ["--lr-head", 0.1], "has no part 'fc' that learns"),
        ("mynet:Wrong", [], "fails on clips [2, 3, 4, 16, 16] (RuntimeError: "),
        ("mynet:Wrong", ["--model-options", "what=frames"], "returns [2, 1, 3] for clips"),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_any_work(shards, project, model, more, text):
    result = train(shards, *more, "--out", "run", model=model)
    assert result.exit_code == 2
    assert text in message(result)
    assert "Traceback" not in result.output
    assert not Path("run").exists()


def test_what_a_preset_sets_and_a_model_has_not_is_left_out_and_said(shards, project):
    result = train(shards, "--preset", "modern", model="mynet:make_tiny")
    assert result.exit_code == 0, result.output
    told = message(result)
    assert "mynet:make_tiny has no option dropout, so that of --preset modern is left out" in told


def test_weights_of_a_run_of_an_own_model_start_another_but_for_its_classifier(shards, project):
    assert train(shards, "--out", "first").exit_code == 0
    result = train(shards, "--weights", "first", "--lr", 1e-9, "--out", "second", "--no-augment")
    told = message(result)
    assert "9 of 11 tensors loaded; new: classifier.weight, classifier.bias" in told
    first, second = (checkpoint.load(Path(run, "best.pt"))["model"] for run in ("first", "second"))
    assert torch.allclose(first["features.0.weight"], second["features.0.weight"], atol=1e-6)
    assert not torch.allclose(first["classifier.weight"], second["classifier.weight"], atol=1e-3)


def test_an_own_model_is_pretrained_and_goes_on_from_there(shards, project):
    words = ["--shards", shards, "--model", NAME, "--frames", 2, "--windows", 2, "--size", 16]
    words += ["--batch-size", 6, "--epochs", 1, "--device", "cpu", "--precision", "fp32"]
    run_soundly(pretrain_main, *words, "--out", "pretrained")
    result = train(shards, "--weights", "pretrained", "--out", "run")
    assert result.exit_code == 0, result.output
    assert "tensors loaded; new: classifier.weight, classifier.bias" in message(result)


STRANGERS = ("os:system", "script:Tiny", "script:build", "antigravity:geohash", "mynet:make_tiny")


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("command", ["eval", "predict", "export", "resume", "config"])
def test_a_run_or_config_of_a_stranger_runs_nothing(shards, project, monkeypatch, name, command):
    """The name of a model in a file imports no module of Python, no script, calls no function."""
    script = "open('ran', 'w')\ndef build(num_classes): open('ran', 'w')"
    (project / "script.py").write_text(script)
    run = make_run(project / "stranger", load_manifest(shards))
    state = checkpoint.load(run / "best.pt") | {"model_name": name, "model_options": {}}
    state["config"]["model"] = name
    for file, more in (("best.pt", {}), ("last.pt", {"progress": {}})):
        checkpoint.save(state | more, run / file)
    (project / "c.toml").write_text(f'model = "{name}"\nshards = "{shards}"\n')
    called = []
    monkeypatch.setattr("os.system", lambda *words: called.append(words))
    result = {
        "eval": lambda: har_eval(run),
        "predict": lambda: run_command(predict_main, run, "mynet.py"),
        "export": lambda: run_command(export_main, run, "-o", "x.pt2"),
        "resume": lambda: har_train("--resume", run),
        "config": lambda: har_train("--config", "c.toml"),
    }[command]()
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    words = ("no function", "has no 'Tiny'", "a module of Python itself")
    assert any(text in message(result) for text in words), result.output
    assert not called
    assert not (project / "ran").exists()


def test_an_own_model_may_say_what_input_it_is_made_for(shards, project):
    with open("mynet.py", "a") as file:
        file.write(
            "\nfrom har.shards.transforms.clip_transform import ClipTransform\n"
            "class Dark(Tiny):\n    transform = ClipTransform(mean=(0.0,) * 3, std=(1.0,) * 3)\n"
        )
    result = train(shards, model="mynet:Dark")
    assert result.exit_code == 0, result.output
    preprocessing = checkpoint.load(Path("runs/Dark/best.pt"))["preprocessing"]
    assert (preprocessing["mean"], preprocessing["std"]) == ([0.0] * 3, [1.0] * 3)
    assert Config(model="mynet:Dark").resolve().lr == 1e-3
