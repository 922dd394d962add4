"""What `har-reproduce` is about to cost in hours on this machine, stage by stage.

Odd: an upper bound. Every run is taken to last all its epochs, although patience often ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...shards import splits as split_rules
from ...shards.format import shard_set
from ..config import Config
from ..inference import predictor
from ..report.tables import duration
from . import timing
from .reproduce import Run, Stage, Wanted

UCF101 = 13_320  # videos
# train, val, test; of the official split 1 as `har.shards.splits` cuts it: 7,430 / 2,107 / 3,783
_SHARES = {"paper": (0.64, 0.16, 0.2), "official-1": (0.558, 0.158, 0.284)}


def lines(wanted: Wanted, stages: Sequence[Stage]) -> str:
    """What is to do and its hours, stage by stage, as lines; times a few steps of each model."""
    left = [one for stage in stages for one in stage.runs if not one.finished]
    total = sum(len(stage.runs) for stage in stages)
    built = (wanted.shards / "manifest.json").is_file()
    videos = [] if built else predictor.find([wanted.videos])
    said = [f"{total} runs in {len(stages)} stages, {total - len(left)} of them done."]
    hours = 0.0 if built else timing.decoding(videos) / 3600
    if not built:
        said.append(f"  {'shards':32s}{_said(hours)}  ({len(videos):,} videos)")
        if len(videos) != UCF101:
            said.append(f"  These are not UCF101's {UCF101:,} videos: nothing will compare.")
    speeds = {model: timing.training(_of(left, model)) for model in _models(left)}
    for stage in stages:
        cost = sum(
            _seconds(one.config, speeds[one.config.model], _sides(wanted, one.config, videos))
            for one in stage.runs
            if not one.finished
        )
        hours += cost / 3600
        done = "done" if all(one.finished for one in stage.runs) else _said(cost / 3600)
        said.append(f"  {stage.name:32s}{done:>10s}  then {_said(hours).strip()} in all")
    said.append(
        f"At most {_said(hours).strip()} on {timing.where()}; patience often ends a run sooner. "
        "Stop with Ctrl-C at any time, best after a stage, when its report is whole: "
        "the same command goes on."
    )
    return "\n".join(said)


def _models(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(one.config.model for one in runs))


def _of(runs: Sequence[Run], model: str) -> Config:
    return next(one.config for one in runs if one.config.model == model)


def _sides(wanted: Wanted, config: Config, videos: Sequence[Path]) -> tuple[float, float, float]:
    """Clips in train, val and test: of the shards, or before they are built by UCF101's shares."""
    if (wanted.shards / "manifest.json").is_file():
        clips = shard_set.load(wanted.shards)
        split = split_rules.make(clips, config.split, config.split_seed)
        return (float(len(split.train)), float(len(split.val)), float(len(split.test)))
    train, val, test = (
        share * len(videos) for share in _SHARES.get(config.split, _SHARES["paper"])
    )
    return (train, val, test)


def _seconds(
    config: Config, speed: tuple[float, float], sides: tuple[float, float, float]
) -> float:
    """Seconds of a whole run. speed: clips a second of training, and of evaluation."""
    train, val, test = sides
    every = train / speed[0] + val / speed[1]
    limit = config.max_minutes * 60 or float("inf")
    return min(config.epochs * every, limit) + test / speed[1]


def _said(hours: float) -> str:
    return f"{duration(hours * 3600):>10s}"
