"""What is in the output already: nothing, an unfinished build, a finished set, or what is left of
one.

A finished set is checked. What is whole of it becomes reports, as those of an unfinished build, and
the build goes on from there. A set that lost its manifest is told from its index: that must name
the very videos of the plan, every byte of the shards must be as the index says, and of each shard
one video is decoded and compared, since nothing else says how the clips were made.
"""

import contextlib
import io
import json
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ...progress import ProgressBar
from ...shards.format import (
    BUILD,
    INDEX,
    MANIFEST,
    NO_GROUP,
    Fault,
    Manifest,
    ShardInfo,
    ShardSetError,
    index_dtype,
    load_manifest,
    verify_full,
    verify_quick,
)
from ...shards.storage import FileFetcher, Folder, LocalFolder, shard_checksum
from ..dataset import load_notes
from .executor import BuildError, RunOptions, run_calls
from .plan import BuildOptions, BuildPlan, describe_differences, make_plan
from .shard_task import Report, ShardTask, first_clips_differ, load_report, make_report
from .video_rows import VideoRow, load_rejects, make_reject

PLAN = f"{BUILD}/plan.json"
_MAX_FAULTS_SHOWN = 10


@dataclass(frozen=True)
class Existing:
    """reports: of the shards that are whole, by the number of their task. manifest: of a finished
    set, whether all its shards are whole or not."""

    reports: dict[int, Report]
    manifest: Manifest | None = None


def find_existing(
    plan: BuildPlan, tasks: list[ShardTask], out: Folder, run_options: RunOptions,
    executor: Executor | None,
) -> Existing:  # fmt: skip
    """Look at the output, and say what is wrong with it. Changes nothing.

    Raises BuildError where something else is there: another plan, other files.
    """
    names = out.names()
    manifest = None
    if MANIFEST in names:
        with contextlib.suppress(ShardSetError):  # what is left of it is looked at below
            manifest = load_manifest(str(out))
    if manifest is not None:
        return _check_finished(plan, tasks, manifest, out, run_options)
    if out.size(PLAN) is not None:
        try:
            there = json.loads(out.read(PLAN))
            is_same = plan.hash == there["hash"] or plan.layout == there.get("layout")
            facts = there["facts"]
        except (ValueError, TypeError, KeyError) as error:
            raise BuildError(
                f"{out}/{PLAN} is damaged ({error!r}), and nothing else says what {out} is being "
                "built of: remove the folder, or give another --out."
            ) from error
        if not is_same:
            raise _other_plan(out, facts, plan.facts)
        reports = ((task.number, load_report(task, out)) for task in tasks)
        return Existing({number: report for number, report in reports if report is not None})
    if MANIFEST in names or INDEX in names:
        return _recover(plan, tasks, out, run_options, executor, names)
    foreign = [name for name in names if name != BUILD]
    if foreign:
        raise BuildError(
            f"{out} is not empty ({foreign[0]}) and no unfinished build: give another --out."
        )
    return Existing({})


def _check_finished(
    plan: BuildPlan, tasks: list[ShardTask], manifest: Manifest, out: Folder,
    run_options: RunOptions,
) -> Existing:  # fmt: skip
    rejects = {reject["key"]: reject for reject in load_rejects(str(out))}
    if manifest.edits:
        commands = ", ".join(dict.fromkeys(edit.command for edit in manifest.edits))
        raise BuildError(
            f"the set in {out} was changed since it was built ({commands}): see 'har-shards info "
            f"{out}', or give another --out."
        )
    if manifest.plan != plan.hash and manifest.plan != _plan_with_old_sizes(plan, rejects).hash:
        names = ("sampling", "resize", "grouping", "versions")
        there = {name: getattr(manifest, name) for name in names}
        there["classes"] = list(manifest.classes)
        raise _other_plan(out, there, {name: plan.facts[name] for name in there})
    reports = _reports_of_index(tasks, manifest, rejects) or {}
    faults = _verify(manifest, run_options)
    _describe_check(manifest, faults, out, run_options)
    broken = {fault.shard for fault in faults}
    whole = {n: report for n, report in reports.items() if tasks[n].shard_name not in broken}
    return Existing(whole, manifest)


def _verify(manifest: Manifest, run_options: RunOptions) -> list[Fault]:
    if run_options.check == "quick":
        return verify_quick(manifest)
    with ProgressBar(len(manifest.shards), "check", "shard", quiet=run_options.quiet) as bar:
        return verify_full(manifest, workers=run_options.workers, progress=bar.advance)


def _describe_check(
    manifest: Manifest, faults: list[Fault], out: Folder, run_options: RunOptions
) -> None:
    for fault in faults[:_MAX_FAULTS_SHOWN]:
        run_options.say(f"{fault}{': it is left alone' if fault.is_foreign else ': made again'}")
    if len(faults) > _MAX_FAULTS_SHOWN:
        run_options.say(f"and {len(faults) - _MAX_FAULTS_SHOWN} more")
    if all(fault.is_foreign for fault in faults):
        checked = "is as written, every byte of them"
        if run_options.check == "quick":
            checked = "has its size (--check full compares every byte)"
        run_options.say(f"{out} is finished: each of its {len(manifest.shards)} shards {checked}")


def _plan_with_old_sizes(plan: BuildPlan, rejects: dict[str, VideoRow]) -> BuildPlan:
    """The plan as it was when the set was built, if only rejected videos have changed since."""
    videos = tuple(
        replace(video, size=rejects.get(video.key, {}).get("size", video.size))
        for video in plan.dataset.videos
    )
    return make_plan(replace(plan.dataset, videos=videos), plan.options)


def _other_plan(out: Folder, there: dict[str, Any], now: dict[str, Any]) -> BuildError:
    fit = {"fit": BuildOptions.fit}  # which has no entry
    there, now = (facts | {"resize": fit | facts.get("resize", {})} for facts in (there, now))
    text = (
        "; ".join(describe_differences(there, now))
        or "the list of videos, their sizes or the shard size differ"
    )
    return BuildError(
        f"{out} holds a shard set of another plan ({text}): give another --out, or remove it first."
    )


def _reports_of_index(
    tasks: list[ShardTask], manifest: Manifest, rejects: dict[str, VideoRow]
) -> dict[int, Report] | None:
    """The reports that the set's shards were made with; None where it is of other videos."""
    shapes = load_notes(manifest.root).get("shapes", {})
    first_videos = [task.first_video for task in tasks]
    task_numbers = np.searchsorted(first_videos, manifest.index["video"], side="right") - 1
    bounds = np.searchsorted(task_numbers, np.arange(len(tasks) + 1))
    if (np.diff(task_numbers) < 0).any():
        return None
    reports = {}
    for task in tasks:
        rows = manifest.index[bounds[task.number] : bounds[task.number + 1]].tolist()
        shards = {manifest.shards[row[1]] for row in rows}
        if any(not _is_planned(task, row) for row in rows) or len(shards) > 1:
            return None
        shard = shards.pop() if shards else None
        if shard is not None and shard.name != task.shard_name:
            return None
        keys = {row[0].decode().split("@")[0] for row in rows}
        lost = [video for video in task.videos if video.key not in keys]
        reports[task.number] = make_report(
            task,
            shard and asdict(shard),
            [[row[0].decode(), *row[2:]] for row in rows],
            [
                rejects.get(video.key) or make_reject(video, task.classes[video.label], "unknown")
                for video in lost
            ],
            shapes.get(task.shard_name, {}) if shard else {},
        )
    return reports


def _is_planned(task: ShardTask, row: tuple[Any, ...]) -> bool:
    """Whether a row of the index is that of a clip of the task."""
    key, _, _, label, group, number, view, subset = row[:8]
    video = task.videos[number - task.first_video]
    expected = (video.label, task.groups.get(video.group, NO_GROUP), video.subset)
    name = video.key if view == 0 else f"{video.key}@{view}"
    return (key.decode(), label, group, subset) == (name, *expected)


def _recover(
    plan: BuildPlan, tasks: list[ShardTask], out: Folder, run_options: RunOptions,
    executor: Executor | None, names: list[str],
) -> Existing:  # fmt: skip
    """What is left of a set whose manifest or index is gone or damaged."""
    index = _read_index(out)
    if index is None:
        if _plan_in_manifest(out) != plan.hash:
            raise BuildError(
                f"{out} holds what is left of a shard set, and nothing says that it is of these "
                "videos: give another --out, or remove it first."
            )
        run_options.say(f"{out}/{INDEX} is gone or damaged: every shard is made again")
        return Existing({})
    rejects = {reject["key"]: reject for reject in load_rejects(str(out))}
    try:
        manifest = _manifest_of_index(plan, tasks, out, index)
        reports = _reports_of_index(tasks, manifest, rejects)
    except (IndexError, ValueError):
        reports = None
    if reports is None:
        raise BuildError(
            f"{out} holds what is left of a shard set of other videos or options: give another "
            "--out, or remove it first."
        )
    run_options.say(f"{out} has no usable {MANIFEST}: it is made again, the shards are checked")
    faults = _verify(manifest, replace(run_options, check="full"))
    broken = {fault.shard for fault in faults}
    whole = {n: report for n, report in reports.items() if tasks[n].shard_name not in broken}
    first_rows = {n: report["rows"][0] for n, report in whole.items() if report["rows"]}
    calls = {n: (tasks[n], row[-1], row[0]) for n, row in first_rows.items()}
    differ = run_calls(
        first_clips_differ, calls, dict.fromkeys(calls, 1), "check", run_options, executor
    )
    if any(differ.values()) or (not first_rows and any(name.endswith(".tar") for name in names)):
        raise BuildError(
            f"the clips in {out} are not what these videos give with these options and versions: "
            "give another --out, or remove it first."
        )
    return Existing(whole)


def _read_index(out: Folder) -> np.ndarray | None:
    try:
        index: np.ndarray = np.load(io.BytesIO(out.read(INDEX)), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_index = index.ndim == 1 and index.dtype.names and len(index)
    return index if is_index and index.dtype == index_dtype(index.dtype[0].itemsize) else None


def _plan_in_manifest(out: Folder) -> str | None:
    try:
        body = json.loads(out.read(MANIFEST))
    except (OSError, ValueError):
        return None
    return body.get("plan") if isinstance(body, dict) else None


def _manifest_of_index(
    plan: BuildPlan, tasks: list[ShardTask], out: Folder, index: np.ndarray
) -> Manifest:
    """What the manifest would say if the shards are as the index says; those that are missing have
    a size that none has."""
    first_videos = [task.first_video for task in tasks]
    numbers = np.unique(np.searchsorted(first_videos, index["video"], side="right") - 1)
    counts = np.bincount(index["shard"], minlength=len(numbers))
    shards = [
        _shard_info(out, tasks[number].shard_name, int(count))
        for number, count in zip(numbers.tolist(), counts, strict=True)
    ]
    root = out.path if isinstance(out, LocalFolder) else out.url
    return replace(plan.manifest(tuple(shards), index, 0), root=root)


def _shard_info(out: Folder, name: str, num_samples: int) -> ShardInfo:
    with FileFetcher(str(out)) as files:
        path = files.path(name)
        if not path.is_file():
            return ShardInfo(name, num_samples, 1 << 62, "")
        return ShardInfo(name, num_samples, path.stat().st_size, shard_checksum(path))
