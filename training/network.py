"""The model of a run, on the CPU: its options from the config, and the weights it starts from."""

from typing import Any

import numpy as np
from torch import nn

from .. import models
from ..models.weights import CLASSIFIER
from ..shards.format import Manifest
from ..shards.splits import Split
from .config import Config, ConfigError


def known_options(config: Config) -> dict[str, Any]:
    """Every option of the model and its default, for the checkpoint: a later version may have
    other defaults."""
    known = models.options_of(config.model)
    known.pop("weights", None)
    return known


def model_options(config: Config) -> dict[str, Any]:
    """--model-options, then those that are options of har-train: --dropout, --freeze, --input,
    --zero-init where the model has it, --recompute and --drop-path, which are an error where it has
    not; and the midplanes that Kinetics weights need."""
    options, known = config.options, known_options(config)
    if config.recompute != "auto":
        if config.model != "convlstm":
            raise ConfigError(
                f"--recompute {config.recompute}: {config.model} has no such option; use it with "
                "convlstm."
            )
        options["recompute"] = config.recompute == "on"
    if config.freeze is not None:
        options["freeze"] = config.freeze
    if config.weights == "kinetics400" and "midplanes" in known:
        options.setdefault("midplanes", "torchvision")
    if config.drop_path:
        if "drop_path" not in known:
            raise ConfigError(
                f"--drop-path {config.drop_path}: {config.model} has no residual blocks; "
                "leave it out."
            )
        options.setdefault("drop_path", config.drop_path)
    if config.input != "rgb":
        options.setdefault("input", config.input)
    if config.dropout:
        options.setdefault("dropout", config.dropout)
    if config.zero_init and "zero_init_residual" in known:
        options.setdefault("zero_init_residual", True)
    return options


def build_model(
    config: Config, options: dict[str, Any], num_classes: int, weights: str | None
) -> nn.Module:
    """The model, starting from `weights` (`--weights`). A wrong option is a ConfigError."""
    try:
        options = {**options, "weights": weights}
        return models.build(config.model, num_classes, seed=config.seed, **options)
    except models.WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def classifier_name(model: nn.Module) -> str:
    """The classifier's name in the model."""
    return CLASSIFIER.removesuffix(".")


def check_pretraining(config: Config, model: nn.Module, manifest: Manifest, split: Split) -> None:
    """Refuse weights of a har-pretrain that saw val or test clips of this split, or clips of their
    groups: ConfigError, unless `allow_other_split`. Clips are compared by key and group name."""
    info: models.WeightsInfo | None = getattr(model, "weights_info", None)
    if info is None or not info.pretrained_on or config.allow_other_split:
        return
    if info.pretrained_on["split"]["digest"] == split.digest:
        return
    keys, groups = set(info.pretrained_on["keys"]), set(info.pretrained_on["groups"])
    held_out = np.concatenate([split.val, split.test])
    seen = [
        key
        for key, group in zip(
            manifest.keys(held_out), manifest.index["group"][held_out].tolist(), strict=True
        )
        if key in keys or (group >= 0 and manifest.groups[group] in groups)
    ]
    if seen:
        trained = info.pretrained_on["split"]["name"]
        raise ConfigError(
            f"the weights {info.path} were pretrained on split {trained}, whose train clips are of "
            f"the same groups as {len(seen)} of the {len(held_out)} val and test clips of split "
            f"{split.name} (e.g. {seen[0]}): pretrain on --split {split.name} too, or add "
            "--allow-other-split."
        )
