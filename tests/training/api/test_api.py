"""The door for Python: a run from `har.train` to `har.predict`, what it refuses, what it shows."""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest import TestCase

import numpy as np
import pandas
import pytest
from click.testing import CliRunner
from made_predictor import make_video_run
from made_shards import make_shards
from PIL import Image
from tiny_train import metrics_of, stop_after, train

import har
from har.errors import HarError
from har.shards import open_shard_set
from har.training import loop
from har.training.cli.results import predict_main
from har.training.config import Config, ConfigError
from har.training.prediction import Prediction, VideoPrediction
from har.training.pretrain.config import PretrainConfig
from har.training.runtime import checkpoint, run_dir

TINY = {
    "model_options": {"width": 4}, "frames": 4, "size": 16, "batch_size": 6, "epochs": 2,
    "device": "cpu", "precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """Two epochs by `har.train`; read it, do not change it."""
    return har.train(shards=shards, out=tmp_path_factory.mktemp("api") / "run", **TINY)


@pytest.fixture(scope="module")
def video_run(tmp_path_factory):
    return har.load_run(make_video_run(tmp_path_factory.mktemp("api") / "videos"))


@pytest.fixture
def videos(synthetic_videos):
    return sorted(synthetic_videos.rglob("*.avi"))[:2]


def test_import_har_stays_light_and_names_resolve_when_used():
    code = (
        "import sys, har\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL', 'click', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(har.__all__) >= {'train', 'resume', 'load_run', 'predict', 'Run'}\n"
        "assert har.shards.open_shard_set and har.models\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        har.fit  # noqa: B018


def test_a_run_from_python_is_that_of_the_command_line(shards, trained, tmp_path):
    assert train(shards, tmp_path / "run").exit_code == 0
    ours, theirs = metrics_of(trained.path), metrics_of(tmp_path / "run")
    for name in ("train_loss", "train_acc", "val_loss", "val_acc", "lr"):
        assert [line[name] for line in ours] == [line[name] for line in theirs]
    assert {p.name for p in trained.path.iterdir()} >= {"best.pt", "summary.json", "acc.png"}
    assert trained.config == har.load_run(tmp_path / "run").config
    assert trained.config.model_options == "width=4"
    assert (trained.finite, trained.best_epoch) == (True, trained.summary["best_epoch"])


def test_metrics_are_a_data_frame_or_dicts_where_pandas_is_missing(trained, monkeypatch):
    assert isinstance(trained.metrics, pandas.DataFrame)
    assert trained.metrics["epoch"].tolist() == [1, 2]
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert trained.metrics == metrics_of(trained.path)


def test_evaluations_are_those_of_har_eval_and_show_themselves(trained, capsys):
    evaluation = trained.evaluate(device="cpu", subset="val")
    (path,) = trained.path.glob("eval/*-val-*/eval.json")
    assert json.loads(path.read_text()) == evaluation == trained.evaluations[0]
    assert repr(evaluation).startswith("Evaluation(val: video@1 ")
    assert len(repr(evaluation)) < 120
    assert str(evaluation).splitlines()[-1] == f"next: har-report {trained.path} --subset val"
    assert "<td" in evaluation._repr_html_()
    assert "views 1</th>" in trained._repr_html_()
    path.write_text(json.dumps(evaluation | {"epoch": 99}))  # as of a run that trained on since
    assert "views 1, epoch 99</th>" in trained._repr_html_()
    capsys.readouterr()
    trained.evaluate(device="cpu", subset="val", quiet=True)
    assert "".join(capsys.readouterr()) == ""


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"epoch": 3}, r"unknown option 'epoch' \(did you mean epochs"),
        ({"learning_rate": 3}, "unknown option 'learning_rate': the options are .* lr, "),
        ({"epochs": "3"}, "epochs = '3' has the wrong type: give a whole number"),
        ({"epochs": 2.5}, "epochs = 2.5 has the wrong type"),
        ({"lr": "fast"}, "lr = 'fast' has the wrong type: give a number"),
        ({"augment": 1}, "augment = 1 has the wrong type: give true or false"),
        ({"shards": 3}, "shards = 3 has the wrong type: give text"),
        ({"model": TestCase}, "wrong type: give text, e.g. unittest.case:TestCase"),
        ({"out": 3}, "out = 3 has the wrong type: give a path"),
        ({"config": 3}, "config = 3 has the wrong type: give a path"),
        ({"folds": "3"}, "folds = '3' has the wrong type"),
        ({"folds": 1}, "--folds 1 does not work: give 2 or more"),
        ({"on_epoch": 3}, "on_epoch = 3 has the wrong type: give a function"),
        ({"quiet": "no"}, "quiet = 'no' has the wrong type: give true or false"),
        ({"preset": 3}, "--preset 3 is unknown|preset = 3 has the wrong type"),
        ({"model_options": {"width": None}}, "cannot be kept: give a dict of"),
        ({"model_options": {"width": "a,b"}}, "cannot be kept|does not read as"),
        ({"model_options": {"depth": 3}}, "no option 'depth'"),
        ({"lr": -1.0}, "--lr -1.0 does not work: give more than 0"),
        ({"frames": 9}, "hold 4: use --frames 4"),
        ({"shards": "nowhere"}, "no shard set at nowhere"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_leaves_nothing(shards, tmp_path, settings, text):
    with pytest.raises(HarError, match=text):
        har.train(**{"shards": shards, "out": tmp_path / "run", **TINY, **settings})
    assert list(tmp_path.iterdir()) == []


def test_values_are_taken_as_python_has_them(shards, tmp_path, monkeypatch):
    """str and Path, an open shard set, numbers of numpy, a dict of options, a config file."""
    file = tmp_path / "c.toml"
    file.write_text('preset = "modern"\nema_decay = 0.5\nhflip = 0.25\n')
    settings = {**TINY, "epochs": np.int64(1), "lr": np.float32(0.5), "hflip": 0.75}
    monkeypatch.setenv("HOME", str(tmp_path))
    run = har.train(
        shards=open_shard_set(shards), config=str(file), out="~/run", quiet=True,
        split="fold-1/3", **settings,
    )  # fmt: skip
    config = run.config
    assert (config.preset, config.lr_scheduler) == ("modern", "cosine")
    assert (config.ema_decay, config.hflip, config.lr) == (0.5, 0.75, 0.5)
    assert (config.shards, run.path) == (str(shards), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    run = har.train(shards=str(shards), preset="modern", quiet=True, **{**TINY, "epochs": 1})
    assert (run.path, run.config.optimizer) == (Path("runs/resnet3d"), "adamw")
    tuned = har.train(shards=shards, weights=run, quiet=True, **{**TINY, "epochs": 1})
    assert (tuned.config.weights, tuned.path.name) == ("runs/resnet3d", "resnet3d-2")
    options = {"hidden": [4], "stem_channels": 4}
    (tmp_path / "set").symlink_to(shards)
    run = har.train(
        model="convlstm", shards="~/set", quiet=True, **{**TINY, "model_options": options}
    )
    assert run.config.shards == str(tmp_path / "set")
    assert har.load_run("~/run").config == config
    assert run.config.options == {"hidden": (4,), "stem_channels": 4}


def test_a_config_of_a_preset_that_was_not_applied_does_not_train(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"does not apply the preset: call har.train\(preset="):
        loop.fit(Config(preset="modern", shards=str(shards)), tmp_path / "run", run_dir.no_log)


def test_no_run_is_written_over(shards, trained, tmp_path):
    before = (trained.path / "metrics.jsonl").read_bytes()
    sentence = f"the run folder {trained.path} already exists: choose another --out, or go on"
    with pytest.raises(HarError, match=sentence):
        har.train(shards=shards, out=str(trained.path), **TINY)
    with pytest.raises(HarError, match=sentence):
        loop.fit(trained.config, str(trained.path), run_dir.Log(trained.path))
    assert (trained.path / "metrics.jsonl").read_bytes() == before
    for path in (tmp_path, "nowhere", tmp_path / "best.pt"):
        with pytest.raises(checkpoint.CheckpointError, match="give a run folder of har-train"):
            har.load_run(path)
    with pytest.raises(ConfigError, match="path = 3 has the wrong type: give a path"):
        har.load_run(3)


def test_a_run_in_a_thread_trains_silently_and_tells_each_epoch(shards, tmp_path, capsys):
    told, errors = [], []

    def work():
        try:
            har.train(shards=shards, out=tmp_path / "run", quiet=True, on_epoch=tell, **TINY)
        except BaseException as error:
            errors.append(error)

    def tell(run):
        told.append((len(run.metrics), threading.current_thread() is thread))

    thread = threading.Thread(target=work)
    handler = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert (errors, told) == ([], [(1, True), (2, True)])
    assert signal.getsignal(signal.SIGINT) is handler
    assert "".join(capsys.readouterr()) == ""
    assert "best epoch" in (tmp_path / "run" / "log.txt").read_text()


def test_a_stop_saves_and_is_a_keyboard_interrupt_and_resume_goes_on(
    shards, trained, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt, match="SIGTERM") as caught:
            har.train(shards=shards, out=out, **TINY)
    assert caught.value.__notes__ == [f"saved: har.resume({str(out)!r}) goes on"]
    run = har.load_run(out)
    assert (len(run.metrics), run.summary, run.best_epoch) == (1, {}, 1)
    assert "1 of 2, not finished" in repr(run)
    shutil.move(out, tmp_path / "elsewhere")
    assert (repr(run), run.folds) == (f"Run('{out}')", [])
    shutil.move(tmp_path / "elsewhere", out)
    assert har.resume(str(out), workers=0).path == out
    theirs = metrics_of(trained.path)
    assert run.metrics["train_loss"].tolist() == pytest.approx(
        [line["train_loss"] for line in theirs], rel=1e-5
    )
    for settings, text in (
        ({"lr": 0.1}, "--lr cannot change in a resumed run"),
        ({"epoch": 3}, "unknown option 'epoch'"),
        ({"epochs": "3"}, "epochs = '3' has the wrong type"),
    ):
        with pytest.raises(HarError, match=text):
            har.resume(run, **settings)
    assert len(har.resume(run, epochs=3, quiet=True).metrics) == 3


def test_folds_are_one_run(shards, tmp_path):
    out = tmp_path / "folds"
    run = har.train(shards=shards, out=out, folds=2, quiet=True, **{**TINY, "epochs": 1})
    assert [fold.path for fold in run.folds] == [out / "fold-1", out / "fold-2"]
    assert run.metrics[["fold", "epoch"]].to_numpy().tolist() == [[1, 1], [2, 1]]
    evaluation = run.evaluate(device="cpu", quiet=True)
    assert (evaluation["videos"], len(evaluation["folds"])) == (30, 2)
    on_val = run.evaluate(device="cpu", subset="val", quiet=True)
    assert str(on_val).startswith("video@1 of the folds ")
    assert all("folds" in text for text in (repr(run), repr(on_val), run._repr_html_()))
    assert Image.open(io.BytesIO(run.plot()._repr_png_())).size == (960, 330)
    assert har.resume(run).finite
    (out / "fold-1" / "summary.json").unlink()
    (out / "fold-2" / "summary.json").unlink()
    assert (repr(run), len(run.metrics)) == (f"Run('{out}', model resnet3d, folds 0 finished)", 0)
    with pytest.raises(HarError, match=r"no fold of .* is finished: 'har-train --resume"):
        run.evaluate()


def test_a_run_whose_loss_is_not_finite_says_so(shards, tmp_path):
    run = har.train(shards=shards, out=tmp_path / "run", quiet=True, **{**TINY, "lr": 1e30})
    assert not run.finite
    assert not har.load_run(run.path).finite
    assert "is not finite" in repr(run)


def test_predictions_are_those_of_har_predict(video_run, videos, tmp_path, capsys):
    broken = tmp_path / "broken.avi"
    broken.write_text("")
    answers = har.predict(video_run.path, [broken, *map(str, videos)], device="cpu")
    assert f"{broken} is empty: 0 bytes." in capsys.readouterr().err
    assert [answer.path for answer in answers] == [broken, *videos]
    assert (answers[0].label, answers[0].times) == (None, [])
    assert answers[0].error == f"{broken} is empty: 0 bytes."
    one = answers[1]
    assert one.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert one.top(1) == [(one.label, one.probability)]
    printed = CliRunner().invoke(predict_main, [str(video_run.path), "--json", *map(str, videos)])
    assert json.loads(printed.stdout) == [answer.to_dict() for answer in answers[1:]]
    assert answers.labels == [answer.label for answer in answers]
    assert list(answers.table["label"][1:]) == answers.labels[1:]
    windowed = video_run.predict(videos[0], window=0.8, quiet=True)[0]
    assert windowed.times[0] == (0.0, 0.8)
    assert len(windowed.times) == len(windowed.windows) > 2
    with pytest.raises(HarError, match=r"unknown option 'windows' .did you mean window"):
        har.predict(video_run, videos, windows=0.8)
    for bad in ([], "nothing/*.avi", 3, [3]):
        with pytest.raises(HarError, match=r"nothing to predict|no video in|wrong type"):
            har.predict(video_run, bad)


def test_what_a_notebook_shows_is_short_escaped_and_needs_nothing_else(
    trained, video_run, videos, tmp_path
):
    name = "<script>alert('x')</script>&"
    window = VideoPrediction(f"{name}.avi", [name, "b"], np.array([0.9, 0.1], np.float32))
    failed = VideoPrediction(name, [name], np.empty(0, np.float32), error=f"{name} is broken")
    manifest = make_shards(tmp_path / "<b>set", classes=(name, "Wave", "YoYo"))
    shown = {
        "run": trained, "set": open_shard_set(manifest.root), "list": Prediction([window, failed]),
        "one": window, "videos": har.predict(video_run, videos, device="cpu"),
    }  # fmt: skip
    for what, thing in shown.items():
        html = thing._repr_html_()
        assert "<script" not in html, what
        assert "<b>set" not in html
        assert "http" not in html
        assert "<td" in html
        assert len(html) < 60_000
        assert len(repr(thing)) < 200
    assert "&lt;script&gt;" in shown["list"]._repr_html_()
    for what, count in (("set", 3), ("videos", 2)):
        strips = re.findall('data:image/jpeg;base64,([^"]+)"', shown[what]._repr_html_())
        pictures = [Image.open(io.BytesIO(base64.b64decode(strip))) for strip in strips]
        assert [picture.height for picture in pictures] == [64] * count
    (manifest.root / "shard-000000.tar").unlink()
    assert "<td" in open_shard_set(manifest.root)._repr_html_()
    many = Prediction([window] * 50)
    assert "... and 30 more" in many._repr_html_()
    assert repr(many) == f"Prediction(50 videos: 50 {name})"


def test_a_folder_with_a_checkpoint_alone_is_a_run(video_run):
    assert (video_run.config.model, len(video_run.metrics)) == ("convlstm", 0)
    assert "convlstm" in repr(video_run)
    with pytest.raises(HarError, match=r"no epoch of .* is finished: there is nothing to draw yet"):
        video_run.plot()


def test_a_run_of_har_pretrain_can_be_looked_at(tmp_path):
    (tmp_path / "config.toml").write_text(PretrainConfig(model="convlstm").to_toml())
    run = har.load_run(tmp_path)
    assert (run.config, run.best_epoch) == (PretrainConfig(model="convlstm"), 0)
    assert "0 of 200, not finished" in repr(run)


def test_training_and_plots_leave_the_backend_of_a_notebook_alone(shards, tmp_path):
    """As after `%matplotlib inline`: a backend of another module, a figure that is open."""
    (tmp_path / "inline_backend.py").write_text(
        "from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas\n"
    )
    code = (
        "import sys, matplotlib, matplotlib.pyplot as plt, har\n"
        "figure = plt.figure()\n"
        "before = dict(matplotlib.rcParams)\n"
        f"run = har.train(shards={str(shards)!r}, out='run', quiet=True, **{TINY!r})\n"
        "run.evaluate(device='cpu', quiet=True)\n"
        "shown = run.plot()\n"
        "assert shown._repr_png_().startswith(b'\\x89PNG')\n"
        "assert matplotlib.get_backend() == 'module://inline_backend'\n"
        "assert dict(matplotlib.rcParams) == before\n"
        "assert plt.get_fignums() == [1] and plt.gcf() is figure\n"
    )
    environment = {
        **os.environ, "MPLBACKEND": "module://inline_backend",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
