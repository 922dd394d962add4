"""`make ablation`: its recipes are options of har-train, it goes on where it stopped, its table."""

import json

import ablation
import pytest
from click.testing import CliRunner
from made_shards import make_shards
from tiny_train import har_train

from har.shards.format import load_manifest
from har.training import config
from har.training.cli.pretrain import pretrain_main
from har.training.cli.results import eval_main
from har.training.cli.train import train_main
from har.training.network import model_options


@pytest.mark.parametrize("model", ablation.MODELS)
def test_recipes_are_settings_of_har_train(model):
    args = ablation.parse(["--models", model])
    settings = []
    for run in ablation.make_runs(args):
        words = [*ablation.MODELS[model][0].split(), "--model", model]
        words += ablation.RECIPES[run.recipe].format(strides="1-4", twice=80).split()
        given = train_main.make_context("har-train", words).params
        given.pop("file", None)
        made = config.make({k: v for k, v in given.items() if k in config.Config.__annotations__})
        assert made.zero_init == ("zero_init_residual" in model_options(made))
        settings.append(made)
    changed = {made for made in settings if made != settings[0]}
    names = {run.recipe for run in ablation.make_runs(args)}
    unlike = len(names) - 1 - sum(name.startswith("pretrained") for name in names)
    assert len(changed) == unlike  # no two recipes are the same


def in_process(command, *words, log, threads):
    commands = {"train": train_main, "pretrain": pretrain_main, "eval": eval_main}
    result = CliRunner().invoke(commands[command], [str(word) for word in words])
    assert result.exit_code == 0, result.output
    calls.append(command)


calls: list[str] = []


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(tmp_path, monkeypatch, capsys):
    make_shards(tmp_path / "shards", shape=(8, 20, 24, 3))
    monkeypatch.setattr(ablation, "call", in_process)
    tiny = "--frames 2 --size 16 --batch-size 6 --model-options width=4 --precision fp32"
    words = [
        "-o", tmp_path / "out", "--sets", tmp_path / "shards", "--seeds", "0", "--epochs", "1",
        "--pretrain-epochs", "1", "--options", tiny, "--recipes", "plain", "windows", "pretrained",
        "--views", "1", "4", "--jobs", "1",  # CliRunner takes the process's streams
    ]  # fmt: skip
    words = [str(word) for word in words]
    calls.clear()
    ablation.main(words)
    assert sorted(calls) == ["eval"] * 6 + ["pretrain"] + ["train"] * 3
    run, *_ = ablation.make_runs(ablation.parse(words))
    table = capsys.readouterr().out
    assert f"| plain | {run.accuracy(1):.3f} |" in table
    assert table.count("| pretrained |") == 2  # for 1 and for 4 views
    for path in run.folder.glob("eval/*/eval.json"):
        path.unlink()  # as after a kill
    calls.clear()
    ablation.main(words)
    assert calls == ["train", "eval", "eval"]  # the training goes on, and is over at once
    assert len(json.loads((run.folder / "summary.json").read_text())) > 3
    calls.clear()
    ablation.main([*words, "--table"])
    ablation.main(words)
    assert calls == []
    assert capsys.readouterr().out.count(table) == 3
    assert har_train("--resume", run.folder).exit_code == 0


def test_a_cell_has_mean_and_range():
    assert ablation._cell([0.5, 0.75, 1.0]) == "0.750 (0.500-1.000)"
    assert ablation._cell([0.5]) == "0.500"
    assert ablation._cell([]) == ""


@pytest.mark.parametrize(
    ("group", "subset"), [(1, "train"), (8, "train"), (10, "val"), (11, "test")]
)
def test_the_groups_of_the_hard_set(group, subset):
    assert ablation.subset_of(f"v_SwipeUp_g{group:02d}_c01") == subset


@pytest.mark.slow
def test_the_real_set_holds_groups_out(tmp_path, real_clips):
    args = ablation.parse(
        ["-o", str(tmp_path), "--sets", "real", "--real", str(real_clips / "ucf101")]
    )
    ablation.make_set(args, "real")
    manifest = load_manifest(tmp_path / "real" / "shards")
    assert manifest.classes == ("Punch", "YoYo")
    assert manifest.clip_shape == (32, 64, 86, 3)
    assert list((tmp_path / "real").iterdir()) == [tmp_path / "real" / "shards"]
    before = (tmp_path / "real" / "shards" / "manifest.json").stat().st_mtime_ns
    ablation.make_set(args, "real")
    assert (tmp_path / "real" / "shards" / "manifest.json").stat().st_mtime_ns == before
