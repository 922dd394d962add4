"""Add videos to a finished set: new shards beside the old ones, which keep every byte.

Sampling and frame size are the set's; classes keep their numbers, and new ones get the next. The
new shards are made by the tasks of a build, so an interrupted `add` goes on where it stopped.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...errors import printable
from ...shards.edit import (
    EditError,
    commit_edit,
    common_grouping,
    common_versions,
    locked_set,
    number_classes,
    number_names,
)
from ...shards.format import (
    REJECTS,
    ClipReader,
    Journal,
    Manifest,
    next_shard_number,
    read_journal,
    remove_leftovers,
    write_journal,
)
from ...shards.storage import Folder
from ..dataset import Dataset, Notes, Video, hash_path, load_notes, save_notes
from ..sampling import ClipSampler
from .build import check_free_space, check_rejects, notes_of, retry_rejected, shard_tasks
from .executor import RunOptions, clear_errors, run_tasks
from .plan import BuildOptions, BuildPlan, describe_differences, make_plan, package_versions
from .shard_task import DECODERS, ShardTask, join_reports, load_report
from .video_rows import VideoRow, encode_rows, load_rejects, save_warnings


@dataclass(frozen=True)
class AddOptions:
    """existing: what is done with videos whose keys are in the set: "refuse" them all, "skip" them,
    or "rename" them by a hash of their path. merge_case: class names that differ from the set's by
    case alone are the same. shard_bytes, keep_partial: see `BuildOptions`."""

    existing: str = "refuse"
    merge_case: bool = False
    shard_bytes: int = BuildOptions.shard_bytes
    keep_partial: bool = False


@dataclass(frozen=True)
class Added:
    """before, after: the set. num_skipped, num_renamed: videos whose keys were in it already.

    notes: what was left out and guessed (see `note_lines`). rejects: videos that gave no clip.
    warnings: of those that are odd (see `load_warnings`).
    """

    before: Manifest
    after: Manifest
    num_skipped: int = 0
    num_renamed: int = 0
    notes: Notes = field(default_factory=dict)
    rejects: tuple[VideoRow, ...] = ()
    warnings: tuple[VideoRow, ...] = ()


def add_videos(
    root: Path | str,
    find: Callable[[], Dataset],
    *,
    add_options: AddOptions | None = None,
    run_options: RunOptions | None = None,
    executor: Executor | None = None,
) -> Added:
    """Decode the videos that `find` gives (see `find_videos`) into the set at `root`.

    executor: where tasks run; None = threads here. Raises BuildError, DatasetError, EditError,
    PlanError, ShardSetError, StorageError, TaskError; KeyboardInterrupt passes.
    """
    add_options, run_options = add_options or AddOptions(), run_options or RunOptions()
    with locked_set(root) as (folder, manifest), closing(DECODERS):
        found = find()
        dataset, num_renamed = _fit_to_set(manifest, found, add_options)
        num_skipped = len(found.videos) - len(dataset.videos)
        if not dataset.videos:
            return Added(manifest, manifest, num_skipped, notes=found.describe())
        plan = _make_plan(manifest, dataset, add_options)
        with clear_errors(folder):
            added = _add(folder, manifest, plan, run_options, executor)
    if added.after is manifest:
        num_renamed = 0
    return replace(added, num_skipped=num_skipped, num_renamed=num_renamed)


def _add(
    folder: Folder,
    manifest: Manifest,
    plan: BuildPlan,
    run_options: RunOptions,
    executor: Executor | None,
) -> Added:
    """Make the shards of the plan, and a set of the old ones and these."""
    groups, numbers = number_names(manifest.groups, plan.groups)
    group_numbers = dict(zip(plan.groups, numbers, strict=True))
    tasks = _tasks(manifest, plan, folder, run_options.timeout, group_numbers)
    _prepare(folder, manifest, tasks)
    loaded = {task.number: report for task in tasks if (report := load_report(task, folder))}
    reports = retry_rejected(tasks, loaded, run_options, executor)
    missing = [task for task in tasks if task.number not in reports]
    check_free_space(plan, folder, len(missing) / len(tasks), run_options)
    reports |= run_tasks(missing, folder, run_options, executor)
    in_order = [reports[task.number] for task in tasks]
    rejects = [reject for report in in_order for reject in report["rejects"]]
    old_rejects, num_videos = _rejects_of(manifest), len(plan.dataset.videos)
    if len(rejects) == num_videos and _paths(rejects) <= _paths(old_rejects):
        remove_leftovers(folder, manifest)  # nothing is new: they failed in an `add` before
        return Added(manifest, manifest, notes=notes_of(plan, []), rejects=tuple(rejects))
    folder.write(REJECTS, encode_rows(old_rejects + rejects))
    check_rejects(rejects, num_videos, folder, run_options.max_rejects)
    save_warnings(folder, in_order)
    notes = notes_of(plan, in_order)
    _add_notes(folder, notes)
    shards, index = join_reports(in_order, len(manifest.shards))
    new = replace(
        manifest,
        classes=plan.dataset.classes,
        groups=groups,
        shards=manifest.shards + shards,
        index=np.concatenate([manifest.index, index]),
    )
    new = _commit(folder, manifest, new, plan.dataset, rejects)
    warnings = tuple(row for report in in_order for row in report.get("warnings", ()))
    return Added(manifest, new, notes=notes, rejects=tuple(rejects), warnings=warnings)


def _fit_to_set(
    manifest: Manifest, dataset: Dataset, add_options: AddOptions
) -> tuple[Dataset, int]:
    """-> the data set with the set's class numbers, without groups where the set has none, and how
    many videos got another key."""
    if manifest.grouping and not dataset.grouping:
        raise EditError(
            f"the set at {manifest.root} has groups ({manifest.grouping}) and the new videos have "
            "none: give --group-regex ('(.+)' makes each video a group of its own), or a CSV with "
            "a column group."
        )
    videos = _choose_videos(manifest, dataset.videos, add_options.existing)
    used = sorted({video.label for video in videos})
    names = [dataset.classes[label] for label in used]
    classes, numbers = number_classes(manifest.classes, names, add_options.merge_case)
    label_of = dict(zip(used, numbers, strict=True))

    def fit(video: Video) -> Video:
        label, group = label_of[video.label], video.group if manifest.grouping else ""
        if group and dataset.grouping == "ucf101":  # the class may be written in another case
            group = f"{classes[label]}/{group.rsplit('/', 1)[-1]}"
        return replace(video, label=label, group=group)

    notes = dataset.notes
    if dataset.grouping and not manifest.grouping:
        notes += (f"the groups of {len(videos)} added videos are left out: the set has none",)
    fitted = replace(
        dataset,
        notes=notes,
        classes=classes,
        grouping=dataset.grouping if manifest.grouping else None,
        videos=tuple(map(fit, videos)),
    )
    keys = {video.key for video in dataset.videos}
    return fitted, sum(video.key not in keys for video in videos)


def _choose_videos(
    manifest: Manifest, videos: tuple[Video, ...], existing: str
) -> tuple[Video, ...]:
    """The videos to be added, under keys that the set does not have, whatever their case."""
    indices = {key.split("@")[0].casefold(): i for i, key in enumerate(manifest.keys())}
    with closing(ClipReader(manifest)) as reader:

        def exists(video: Video) -> bool:
            if video.key.casefold() in indices:
                return True
            plain = video.key.removesuffix(f"-{hash_path(video.path)}")  # see `find_videos`
            index = indices.get(plain.casefold())
            return index is not None and reader.read_metadata(index).get("source") == printable(
                video.path
            )

        in_set = [video for video in videos if exists(video)]
    if in_set and existing == "refuse":
        raise EditError(
            f"{len(in_set)} of the {len(videos)} videos have keys that are in {manifest.root} "
            f"already (first {in_set[0].key}, of {in_set[0].path}): '--existing skip' leaves these "
            "videos out, '--existing rename' adds them under other keys."
        )
    left_out = set(in_set)
    if existing == "skip":
        return tuple(video for video in videos if video not in left_out)
    renamed = tuple(
        replace(video, key=f"{video.key[:71]}-{hash_path(video.path)}")
        if video in left_out
        else video
        for video in videos
    )
    for video in renamed:
        if video.key.casefold() in indices:
            raise EditError(
                f"{video.path} is in {manifest.root} already, as {video.key}: use '--existing "
                "skip'."
            )
    return renamed


def _make_plan(manifest: Manifest, dataset: Dataset, add_options: AddOptions) -> BuildPlan:
    """Clips as the set's are made, or EditError."""
    try:
        sampling = ClipSampler(**manifest.sampling)
    except TypeError as error:
        raise EditError(
            f"the frames of {manifest.root} were chosen by a rule that this version does not know "
            f"({manifest.sampling}): build the set again."
        ) from error
    H, W = manifest.clip_shape[1:3]
    options = BuildOptions(
        sampling,
        (H, W),
        add_options.shard_bytes,
        add_options.keep_partial,
        manifest.resize.get("fit", BuildOptions.fit),
    )
    plan = make_plan(dataset, options, min_shards=1)
    names = ("sampling", "resize")
    there, now = ({n: get(n) for n in names} for get in (vars(manifest).get, plan.facts.get))
    if lines := describe_differences(there, now):
        raise EditError(
            f"this version makes other clips than those of {manifest.root} ({'; '.join(lines)}): "
            "add with the version that built it, or build the set again."
        )
    return plan


def _tasks(
    manifest: Manifest, plan: BuildPlan, folder: Folder, timeout: float, groups: dict[str, int]
) -> list[ShardTask]:
    """Those of the plan, with the next numbers of the set."""
    first_shard, first_video = next_shard_number(manifest), int(manifest.index["video"].max()) + 1
    plan_hash = hashlib.sha256(f"{manifest.digest} {plan.layout}".encode()).hexdigest()
    return [
        replace(
            task,
            number=first_shard + task.number,
            plan=plan_hash,
            first_video=first_video + task.first_video,
            groups={name: groups[name] for name in task.groups},
        )
        for task in shard_tasks(plan, str(folder), timeout)
    ]


def _prepare(folder: Folder, manifest: Manifest, tasks: list[ShardTask]) -> None:
    """Keep what an interrupted run of the same `add` made, and nothing else."""
    journal = Journal("add", tasks[0].number, plan=tasks[0].plan)
    if read_journal(folder) != journal:
        remove_leftovers(folder, manifest)
        write_journal(folder, journal)


def _commit(
    folder: Folder, old: Manifest, new: Manifest, dataset: Dataset, rejects: list[VideoRow]
) -> Manifest:
    """A video that was a reject and is in the set now is a reject no longer."""
    paths = {video.path for video in dataset.videos}
    rejects = [reject for reject in _rejects_of(old) if reject["path"] not in paths] + rejects
    folder.write(REJECTS, encode_rows(rejects))
    grouping = common_grouping(new.groups, old.grouping, dataset.grouping)
    versions = common_versions(old.versions, package_versions())
    new = replace(new, grouping=grouping, rejects=len(rejects), versions=versions)
    return commit_edit(folder, old, new, "add", added=len(new.index) - len(old.index))


def _paths(rejects: list[VideoRow]) -> set[str]:
    return {reject["path"] for reject in rejects}


def _rejects_of(manifest: Manifest) -> list[VideoRow]:
    """Those of the set: behind them are those of an `add` that did not end."""
    return load_rejects(manifest.root)[: manifest.rejects]


def _add_notes(folder: Folder, notes: Notes) -> None:
    """Put what has to be said of the new videos behind what the set has."""
    body = load_notes(str(folder))
    for name, entries in notes.items():
        if isinstance(entries, dict):  # shapes, by shard
            body[name] = body.get(name, {}) | entries
        else:
            there = body.setdefault(name, [])
            there += [entry for entry in entries if entry not in there]
    if notes:
        save_notes(folder, body)
