"""The config checks itself, survives TOML, and is the only home of the command line's defaults."""

import dataclasses
import math
import re

import pytest
from tiny_train import har_train

from har import models
from har.shards import splits
from har.training import config
from har.training.cli.train import train_main
from har.training.config import Config, ConfigError
from har.training.values import upgrade_settings


def test_model_dependent_defaults_are_filled_in_once():
    scratch, tuned = Config().resolve(), Config(model="r3d").resolve()
    assert (scratch.weights, scratch.lr, scratch.augment) == ("none", 1e-3, True)
    assert (tuned.weights, tuned.lr, tuned.augment) == ("kinetics400", 1e-4, False)
    assert Config(model="r3d", weights="none").resolve().lr == 1e-3
    assert Config(lr=0.5, augment=False).resolve().lr == 0.5
    assert scratch.resolve() == scratch


@pytest.mark.parametrize("model", ["resnet3d", "r3d"])
def test_toml_round_trip(tmp_path, model):
    made = Config(model=model, model_options="width=8", shards='a "b" \\c', hflip=0.5).resolve()
    (tmp_path / "config.toml").write_text(made.to_toml())
    assert config.make({}, tmp_path / "config.toml") == made


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "vgg"), ("split", "mine"), ("optimizer", "lion"), ("precision", "fp8"),
        ("frames", 0), ("batch_size", 0), ("epochs", 0), ("patience", 0), ("workers", -1),
        ("seed", -1), ("size", 4), ("lr", 0.0), ("lr", -1.0), ("plateau_factor", 1.0),
        ("crop_scale", 0.0), ("crop_scale", 1.5), ("hflip", 2.0), ("rotation", -1.0),
        ("epsilon_increment", -0.1), ("max_minutes", -1.0), ("model_options", "width"),
        ("mixup_alpha", -0.2), ("clip_grad", -1.0), ("grad_accum_steps", 3), ("ema_decay", 1.0),
        ("frame_stride", "0"), ("frame_stride", "3-2"), ("frame_stride", "2-"),
        ("frame_stride", "all"),
        ("rand_augment", 31), ("lr_head", 0.0), ("momentum", 0.5), ("momentum", 1.0),
        ("step_size", 5), ("gamma", 0.5), ("lr", math.inf), ("warmup_epochs", math.inf),
        ("rank_timeout", math.inf), ("model", "mynet:"), ("model", "a b:C"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_names_option_value_and_what_is_allowed(field, value):
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    text = str(caught.value)
    assert f"--{field.replace('_', '-')}" in text
    assert str(value) in text
    assert re.search("choose one of|give", text)


def test_mixup_and_cutmix_do_not_go_together():
    with pytest.raises(ConfigError, match=r"--mixup-alpha 0.2 and --cutmix-alpha 1.0 do not go"):
        Config(mixup_alpha=0.2, cutmix_alpha=1.0)


def test_model_options_become_numbers_booleans_and_lists():
    made = Config(model_options="width=32, dropout=0.5,peephole=true,hidden=[8;16],pooling=max")
    assert made.options == {
        "width": 32, "dropout": 0.5, "peephole": True, "hidden": (8, 16), "pooling": "max",
    }  # fmt: skip


def test_unknown_settings_and_broken_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown setting 'speed'"):
        config.from_mapping({"speed": 1})
    for text in ("model = [", 'model = "resnet3d"\nframes = "many"'):
        (tmp_path / "c.toml").write_text(text)
        with pytest.raises(ConfigError, match=r"not a readable config|wrong type"):
            config.make({}, tmp_path / "c.toml")


def test_every_field_is_an_option_that_says_its_default():
    options = {option.name: option for option in train_main.params}
    text = har_train("--help").output
    for field in dataclasses.fields(Config):
        assert options[field.name].default is None  # so that presets can lie below
        assert options[field.name].help.startswith(field.metadata["help"])
        assert f"--{field.name.replace('_', '-')}" in text
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
            assert f"[{field.default}]" in options[field.name].help


def test_options_beat_the_file_beats_the_preset_beats_the_defaults(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('preset = "modern"\nema_decay = 0.5\nhflip = 0.25\n')
    made = config.make({"hflip": 0.75, "frames": None}, file)
    assert (made.hflip, made.ema_decay, made.lr_scheduler, made.frames) == (0.75, 0.5, "cosine", 16)
    assert config.make({"preset": "paper"}, file).lr_scheduler == "plateau"
    assert config.make({}) == Config()


@pytest.mark.parametrize(("theirs", "preset"), [("paper", "modern"), ("modern", "paper")])
def test_a_preset_beside_the_config_of_a_run_of_another_is_refused(tmp_path, theirs, preset):
    file = tmp_path / "config.toml"
    made = config.make({"preset": theirs, "hflip": 0.25})
    file.write_text(made.to_toml())
    assert config.make({"preset": theirs}, file) == made
    with pytest.raises(ConfigError, match=f"--preset {preset} changes nothing: .*config.toml sets"):
        config.make({"preset": preset}, file)


def test_every_preset_is_valid_and_paper_is_the_default():
    assert config.PRESETS["paper"] == {}
    for name in config.PRESETS:
        assert config.make({"preset": name}).preset == name


def test_names_of_models_and_splits_are_those_of_their_packages():
    assert config.CHOICES["model"] == tuple(models.NAMES)
    assert config.CHOICES["split"] == splits.SPLIT_SCHEMES


def test_settings_of_an_old_run_are_read_under_their_names_of_today(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(
        'model = "convlstm"\nschedule = "cosine"\nema = 0.9\nclip_norm = 5.0\naccumulate = 2\n'
        'mix = "cutmix"\nmix_alpha = 0.3\nflip = 0.5\ndegrees = 5.0\njitter = true\n'
        'max_bad = 1\nshuffle_window = 8\ncompile = "off"\nmemory = "fast"\n'
    )
    assert config.make({}, file) == Config(
        model="convlstm", lr_scheduler="cosine", ema_decay=0.9, clip_grad=5.0, grad_accum_steps=2,
        cutmix_alpha=0.3, hflip=0.5, rotation=5.0, temporal_jitter=True, max_corrupt=1,
        shuffle_block_size=8, compile=False, recompute="off",
    )  # fmt: skip
    assert upgrade_settings({"mix": "none", "mix_alpha": 0.2, "compile": "on"}) == {"compile": True}
