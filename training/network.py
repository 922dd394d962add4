"""The model of a run, on the CPU: its options from the config, and the weights it starts from."""

from typing import Any

from torch import nn

from .. import models
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
