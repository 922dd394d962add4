"""The command har-pretrain. Its options are made from the fields of `PretrainConfig`."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ...errors import Command, one_sentence
from ..config import ConfigError
from ..pretrain.config import UNUSED, PretrainConfig
from .train import config_options, exit_codes


def _options(command: Command) -> Command:
    return config_options(command, PretrainConfig, UNUSED)


@click.command()
@_options
@click.option("--config", "file", type=click.Path(path_type=Path), help="Settings as a TOML file.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder. [runs/MODEL-pretrain, -2, -3 ...]"
)
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder.")
@one_sentence
def pretrain_main(
    file: Path | None, out: Path | None, resume: Path | None, **settings: Any
) -> None:
    """Train a model, one of the four or your own, without labels, on the train clips alone.

    Example: har-pretrain --model resnet3d --out runs/pretrained

    Then: har-train --model resnet3d --weights runs/pretrained
    """
    from ... import models
    from ...shards.format import load_manifest
    from .. import config
    from ..api import fit_or_stop, is_main_process
    from ..pretrain.contrast import make_task
    from ..runtime import run_dir
    from ..setup import make_split

    state = None
    if resume is not None:
        if out is not None or file is not None:
            raise ConfigError("--resume goes on in its own folder: leave out --out and --config.")
        run_config, folder, state = run_dir.load_resumed(resume, settings, PretrainConfig)
    else:
        run_config = config.make(settings, file, PretrainConfig)
        if settings["model"] is not None:
            models.allow(run_config.model)
        folder = run_dir.choose_folder(out, f"{run_config.model}-pretrain")
    assert isinstance(run_config, PretrainConfig)
    log = run_dir.Log(folder) if is_main_process() else run_dir.no_log
    with exit_codes():
        task = make_task(run_config)
        summary = fit_or_stop(run_config, folder, log, state, folder, task=task)
    if not summary["finite"]:
        log("next: pretrain anew with that changed")
        sys.exit(1)
    try:
        make_split(run_config, load_manifest(run_config.shards))
    except ConfigError:  # its train clips are of one class
        next_command = _train_command(replace(run_config, shards="SET"), folder)
        log(f"next: {next_command}, with a SET of two classes or more")
    else:
        log(f"next: {_train_command(run_config, folder)}")


def _train_command(run_config: PretrainConfig, folder: Path) -> str:
    """The har-train that goes on with it: the same network, set and split."""
    names = ("model_options", "input", "size", "shards", "split", "split_seed", "val_from_train")
    given = {"model": run_config.model, "weights": folder} | {
        name: getattr(run_config, name)
        for name in names
        if getattr(run_config, name) != getattr(PretrainConfig, name)
    }
    words = (f"--{name.replace('_', '-')} {shlex.quote(str(v))}" for name, v in given.items())
    return " ".join(("har-train", *words))
