"""The model of a run, on the CPU: its options from the config, and the weights it starts from."""

from typing import Any

import numpy as np
from torch import nn

from .. import models
from ..shards.format import NO_GROUP, Manifest
from ..shards.splits import Split, make_split
from .config import PRESETS, Config, ConfigError


def known_options(config: Config) -> dict[str, Any]:
    """Every option of the model and its default, for the checkpoint: a later version may have
    other defaults."""
    known = models.options_of(config.model)
    if not models.is_custom(config.model):
        known.pop("weights", None)
    return known


def model_options(config: Config) -> dict[str, Any]:
    """--model-options, then those that are options of har-train: --freeze, --dropout, --drop-path
    and --input, --recompute and --zero-init, and the midplanes that Kinetics weights need.

    Raises ConfigError where the model has no such option. What a preset sets is left out then
    (`left_out`), and `build_model` does the freezing of a user's model that has no option for it.
    """
    options, known = config.options, known_options(config)
    if config.recompute != "auto":
        if config.model != "convlstm":
            raise ConfigError(
                f"--recompute {config.recompute}: {config.model} has no such option; use it with "
                "convlstm."
            )
        options["recompute"] = config.recompute == "on"
    if config.freeze is not None and "freeze" in known:
        options["freeze"] = config.freeze
    if config.weights == "kinetics400" and "midplanes" in known:
        options.setdefault("midplanes", "torchvision")
    for name, value in _given(config).items():
        if name in known:
            options.setdefault(name, value)
        elif name not in left_out(config):
            lack = "residual blocks" if config.model == "convlstm" else f"option {name}"
            raise ConfigError(
                f"--{name.replace('_', '-')} {value}: {config.model} has no {lack}; leave it out."
            )
    if config.zero_init and "zero_init_residual" in known:
        options.setdefault("zero_init_residual", True)
    return options


def _given(config: Config) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in ("drop_path", "input", "dropout")}
    return {name: value for name, value in values.items() if value not in (0, "rgb")}


def left_out(config: Config) -> list[str]:
    """Options that the preset sets and a user's model has not."""
    known, preset = known_options(config), PRESETS[config.preset]
    values = _given(config).items()
    return [name for name, value in values if name not in known and value == preset.get(name)]


def build_model(
    config: Config, options: dict[str, Any], num_classes: int, *, resumed: bool = False
) -> nn.Module:
    """The model, starting from `--weights` unless it is resumed. A wrong option is a ConfigError;
    a resumed run goes on with those it has."""
    weights = "none" if resumed else config.weights
    try:
        if not resumed:
            models.check_options(config.model, options)
        if not models.is_custom(config.model):
            options = {**options, "weights": weights}
            return models.build(config.model, num_classes, seed=config.seed, **options)
    except models.WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error
    model = models.build(config.model, num_classes, seed=config.seed, **options)
    info = models.load_weights(model, weights, builder=None, model_name=config.model)
    if info is not None:
        model.weights_info = info  # type: ignore[assignment]
    if config.freeze not in (None, "none") and "freeze" not in options:
        models.freeze_parts(model, config.model, str(config.freeze))
    return model


def classifier_name(model: nn.Module) -> str:
    """The classifier's name in the model. Raises ConfigError where the model does not say it."""
    name = models.head_name(model)
    if name is None:
        raise ConfigError(
            f"{type(model).__name__} does not say which of its parts classifies: let the class "
            "name it in head_name (docs/models.md)."
        )
    return name


def list_parent_data(model: nn.Module) -> list[dict[str, Any]]:
    """What the runs saw that the model's weights come from (`WeightsInfo.data`)."""
    info: models.WeightsInfo | None = getattr(model, "weights_info", None)
    return [] if info is None else [dict(data) for data in info.data]


def check_pretraining(config: Config, model: nn.Module, manifest: Manifest, split: Split) -> None:
    """Refuse weights of a har-pretrain that saw val or test clips of this split, or clips of their
    groups, or that began with such weights: ConfigError, unless `allow_other_split`. Clips are
    compared by key and group name."""
    for number, data in enumerate(list_parent_data(model)):
        is_other = "keys" in data and data["split"]["digest"] != split.digest
        if config.allow_other_split or not is_other:
            continue
        keys, groups = set(data["keys"]), set(data["groups"])
        held_out = np.concatenate([split.val, split.test])
        seen = [
            key
            for key, group in zip(
                manifest.keys(held_out), manifest.index["group"][held_out].tolist(), strict=True
            )
            if key in keys or (group >= 0 and manifest.groups[group] in groups)
        ]
        if seen:
            name, advice = data["split"]["name"], "add --allow-other-split"
            if config.command == "har-pretrain":
                advice = "start from other --weights"
            raise ConfigError(
                f"{_name_weights(model, number)} pretrained on split {name}, whose train clips are "
                f"of the same groups as {len(seen)} of the {len(held_out)} val and test clips of "
                f"split {split.name} (e.g. {seen[0]}): pretrain on --split {split.name} too, or "
                f"{advice}."
            )


def _name_weights(model: nn.Module, number: int) -> str:
    """The weights as the subject of a sentence on entry `number` of their data."""
    info: models.WeightsInfo = model.weights_info  # type: ignore[assignment]
    return f"the weights {info.path} " + ("go back to a run that was" if number else "were")


# Options that change what a network computes, and no tensor's shape.
_SHAPELESS = ("temporal_stride", "stem_pool", "stem_stride", "pooling", "return_sequences", "input")


def describe_other_options(model: nn.Module, options: dict[str, Any]) -> list[str]:
    """A warning where the weights are of a run that had other `options` of the model, with which
    they load and mean something else."""
    info: models.WeightsInfo | None = getattr(model, "weights_info", None)
    theirs = {} if info is None else info.model_options
    differences = [
        f"{name}={theirs[name]} (here {options[name]})"
        for name in _SHAPELESS
        if name in theirs and name in options and theirs[name] != options[name]
    ]
    if info is None or not differences:
        return []
    return [
        f"the weights {info.path} were trained with {', '.join(differences)}: they fit and compute "
        "something else here, unless --model-options has the same"
    ]


def describe_seen_clips(model: nn.Module, manifest: Manifest, split: Split) -> list[str]:
    """A warning where the weights are of a run that trained on val or test clips of this split, or
    on clips of their groups, or that began with such weights. Runs on another shard set, or whose
    split is cut otherwise today, are not compared."""
    lines = []
    held_out, groups = np.concatenate([split.val, split.test]), manifest.index["group"]
    for number, data in enumerate(list_parent_data(model)):
        if data.get("manifest_digest") != manifest.digest:
            continue
        name, seed = data["split"]["name"], data["split"]["seed"]
        theirs = make_split(manifest, name, seed, data["config"].get("val_from_train", 0.0))
        if theirs.digest != data["split"]["digest"]:
            continue
        has_mate = np.isin(groups[held_out], groups[theirs.train]) & (groups[held_out] != NO_GROUP)
        num_seen = (np.isin(held_out, theirs.train) | has_mate).sum()
        if num_seen:
            lines.append(
                f"{_name_weights(model, number)} trained on split {name}, whose train clips are of "
                f"the same groups as {num_seen} of the {len(held_out)} val and test clips of split "
                f"{split.name}: accuracy on them is no test of this run"
            )
    return lines
