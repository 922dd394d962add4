"""har-pretrain as a user runs it: it learns, goes on, reads train clips alone, gives weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_shards import make_shards
from tiny_train import losses_of, message, metrics_of, run_command, stop_after, train

from har.shards import splits
from har.shards.format import load_manifest
from har.training import loop
from har.training.cli.pretrain import pretrain_main
from har.training.cli.results import eval_main, report_main
from har.training.cli.train import train_main
from har.training.runtime import checkpoint


def har_pretrain(*words):
    return run_command(pretrain_main, *words)


def words(shards, out, *more):
    """The options of two epochs of three steps of six clips; `more` overrides."""
    return (
        "--shards", shards, "--out", out, "--model-options", "width=4", "--frames", 2, "--size", 16,
        "--batch-size", 6, "--epochs", 2, "--device", "cpu", "--precision", "fp32",
        "--deterministic", "--save-every-minutes", 0.0001, *more,
    )  # fmt: skip


def pretrain(shards, out, *more):
    result = har_pretrain(*words(shards, out, *more))
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def pretrained(shards, tmp_path_factory):
    """Run folder of a pretraining on the split grouped."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    result = pretrain(shards, out)
    next_command = f"har-train --model resnet3d --weights {out} --model-options width=4 --size 16"
    assert f"next: {next_command} --shards {shards}" in result.output
    return out


def state_of(folder):
    return checkpoint.load(folder / "last.pt")["model"]


def assert_same_run(one, two):
    assert losses_of(one) == losses_of(two)
    a, b = state_of(one), state_of(two)
    assert all(torch.equal(a[name], b[name]) for name in a)


def draw_moving_block(key):
    """A gray clip of 8 frames on which a block of the video's own color moves."""
    random = np.random.default_rng(list(key.encode()))
    clip = np.full((8, 20, 24, 3), 90, np.uint8)
    color, (y, x), step = random.integers(0, 256, 3), random.integers(0, 10, 2), random.integers(2)
    for frame in range(8):
        top, left = (y + frame * step) % 14, (x + frame * (1 - step)) % 18
        clip[frame, top : top + 6, left : left + 6] = color
    return clip


def test_it_learns_to_tell_windows_apart(tmp_path):
    clips = {"shape": (8, 20, 24, 3), "groups": 10, "draw": draw_moving_block}
    shards = make_shards(tmp_path / "set", **clips).root
    plain = [f"--{name}=0" for name in ("hflip", "rotation", "brightness", "contrast")]
    more = ("--epochs", 6, "--frames", 4, "--lr", 0.003, "--warmup-epochs", 1, "--saturation", 0,
            "--crop-scale", 0.7, "--model-options", "width=8", *plain)  # fmt: skip
    output = pretrain(shards, tmp_path / "run", *more).output
    assert "a guess has train acc 0.048, temporal 0.333" in output
    last = metrics_of(tmp_path / "run")[-1]
    assert last["train_acc"] > 0.3
    assert last["train_temporal_acc"] > 0.6
    assert last["spread"] > 0.1
    assert f"temporal acc {last['train_temporal_acc']:.4f}  kNN acc {last['knn_acc']:.4f}" in output
    assert last["val_loss"] is None


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


@pytest.mark.parametrize(("steps", "is_killed"), [(2, False), (3, True), (5, True)])
def test_a_stopped_or_killed_run_ends_bit_equal(
    shards, pretrained, tmp_path, monkeypatch, steps, is_killed
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        if is_killed:
            patch.setattr(loop, "save_if_due", kill_after(steps))
        try:
            result = har_pretrain(*words(shards, out))
        except Killed:
            assert is_killed
        else:
            assert f"next: har-pretrain --resume {out}" in result.output
    assert not (out / "summary.json").exists()
    result = har_pretrain("--resume", out)
    assert result.exit_code == 0, result.output
    assert_same_run(out, pretrained)


def kill_after(steps):
    """`save_if_due` that saves after each step and dies in that of number `steps`."""
    real, done = loop.save_if_due, [0]

    def save(state, watch, since_save, bad_step):
        done[0] += 1
        if done[0] == steps:
            raise Killed
        watch.number = 0
        return real(state, watch, since_save, bad_step)

    return save


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_no_clip_of_val_or_test_is_read(pretrained, shards, tmp_path, cache):
    """It is bit-equal on a set whose other clips are damaged, which reading would notice."""
    copy = Path(shutil.copytree(shards, tmp_path / "set"))
    manifest = load_manifest(copy)
    split = splits.make_split(manifest, "grouped")
    damage(copy, manifest, np.concatenate([split.val, split.test]))
    pretrain(copy, tmp_path / "run", "--cache", cache)
    assert_same_run(tmp_path / "run", pretrained)
    damage(copy, manifest, split.train[:1])
    result = har_pretrain(*words(copy, tmp_path / "other"))
    assert result.exit_code != 0
    assert manifest.keys(split.train[:1])[0] in str(result.output) + str(result.exception)


def damage(root, manifest, indices):
    """Overwrite the stored pixels of these clips."""
    with open(root / "shard-000000.tar", "r+b") as file:
        for offset in manifest.index["offset"][indices].tolist():
            file.seek(offset)
            file.write(bytes(np.prod(manifest.clip_shape)))


def test_a_training_starts_from_it_with_a_new_classifier(pretrained, shards, tmp_path):
    result = train(shards, tmp_path / "run", "--weights", pretrained, "--epochs", 1)
    assert result.exit_code == 0, result.output
    text = message(result)
    assert "a run of resnet3d, pretrained on split grouped, epoch 2:" in text
    assert "new: fc.weight, fc.bias; in the file and not used: fc.layers.0.weight" in text
    frozen = train(
        shards, tmp_path / "frozen", "--weights", pretrained, "--epochs", 1, "--freeze", "layer4"
    )
    assert frozen.exit_code == 0, frozen.output
    trained, before = state_of(tmp_path / "frozen"), state_of(pretrained)
    names = [name for name in trained if not name.startswith("fc.")]
    assert names
    assert all(torch.equal(trained[name], before[name]) for name in names)


@pytest.mark.parametrize("other", ["paper", "fold-1/3"])
def test_pretraining_on_clips_that_are_tested_on_is_refused(pretrained, shards, tmp_path, other):
    options = ("--weights", pretrained, "--epochs", 1, "--split", other)
    result = train(shards, tmp_path / "run", *options)
    assert result.exit_code == 2
    assert "were pretrained on split grouped, whose train clips are of the same groups as" in (
        message(result)
    )
    assert not (tmp_path / "run").exists()
    result = train(shards, tmp_path / "run", *options, "--allow-other-split")
    assert result.exit_code == 0, result.output


def test_all_folds_are_compared_with_it_before_the_first_is_trained(shards, tmp_path):
    pretrain(shards, tmp_path / "first", "--epochs", 1, "--split", "fold-1/3")
    options = ("--weights", tmp_path / "first", "--epochs", 1, "--folds", 3)
    result = train(shards, tmp_path / "run", *options)
    assert result.exit_code == 2
    assert "val and test clips of split fold-2/3" in message(result)
    assert not (tmp_path / "run").exists()


def test_another_split_that_holds_out_the_same_groups_is_taken(pretrained, shards, tmp_path):
    """Those pretrained on are a part of what this set trains on."""
    copy = make_shards(tmp_path / "set", groups=5, clips=3).root  # the same groups, longer
    result = train(copy, tmp_path / "run", "--weights", pretrained, "--epochs", 1)
    assert result.exit_code == 0, result.output


def test_what_a_run_began_with_is_known_of_those_that_begin_with_it(shards, tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert train(shards, first, "--epochs", 1, "--split", "paper").exit_code == 0
    text = "trained on split paper, whose train clips are of the same groups as"
    output = message(pretrain(shards, second, "--epochs", 1, "--weights", first))
    assert f"the weights {first / 'best.pt'} were {text}" in output
    assert har_pretrain("--resume", second, "--epochs", 2).exit_code == 0
    output = message(train(shards, third, "--epochs", 1, "--weights", second))
    assert f"warning: the weights {second / 'best.pt'} go back to a run that was {text}" in output
    names = [[entry["split"]["name"] for entry in parent_data(run)] for run in (second, third)]
    assert names == [["paper"], ["grouped", "paper"]]
    assert parent_data(first) is None
    result = train(shards, tmp_path / "run", "--weights", third, "--split", "fold-1/3")
    assert result.exit_code == 2
    assert "go back to a run that was pretrained on split grouped, whose train" in message(result)


def parent_data(run):
    return checkpoint.load(run / "best.pt").get("parent_data")


def test_pretraining_from_a_pretraining_that_saw_other_clips_is_refused(
    pretrained, shards, tmp_path
):
    more = ("--weights", pretrained, "--split", "fold-1/3")
    result = har_pretrain(*words(shards, tmp_path / "run", *more))
    assert result.exit_code == 2
    assert message(result).endswith(
        "pretrain on --split fold-1/3 too, or start from other --weights."
    )


def test_the_next_command_of_a_set_of_one_class_names_another_set(tmp_path):
    shards = make_shards(tmp_path / "set", classes=("Punch",)).root
    result = pretrain(shards, tmp_path / "run", "--epochs", 1)
    assert message(result).endswith("--shards SET, with a SET of two classes or more")


@pytest.mark.parametrize(
    ("command", "options", "text"),
    [
        (train_main, ["--resume"], "is a run of har-pretrain: go on with 'har-pretrain --resume"),
        (eval_main, [], "a run of har-pretrain, which has no classifier: train one from it"),
        (report_main, [], "is a run of har-pretrain, which has no accuracy to report: leave it"),
    ],
)
def test_what_needs_a_classifier_says_that_there_is_none(pretrained, command, options, text):
    result = run_command(command, *options, pretrained)
    assert result.exit_code == 2
    assert text in message(result)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--windows", 3), "use --frames 1 or fewer, fewer --windows, or shards with more frames"),
        (("--no-augment",), "No such option"),
        (("--weights", "kinetics400"), "kinetics400 weights of resnet3d need"),
        (("--split", "official-1", "--shards", "none"), "none"),
    ],
)
def test_what_cannot_be_pretrained_is_one_sentence(shards, tmp_path, more, text):
    result = har_pretrain(*words(shards, tmp_path / "run", *more))
    assert result.exit_code == 2
    assert text in message(result)
    assert not (tmp_path / "run").exists()
