"""Build a shard set: plan -> one task a shard, through an executor -> index and manifest, last.

A set is whole or it is not there. Finished shards stay when a build is interrupted, at whatever
moment; the same command then makes only what is missing and ends with the same bytes. A build with
other options or videos refuses to mix with what is there, and says what differs.

The local executor is threads. Each drives a decoder process, and hashes and writes while that
decodes the next video; both release the interpreter lock. Any other executor (`dask`) gets the same
tasks; videos and output may be URLs.
"""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Unpack

from ...shards import storage
from ...shards.format import (
    BUILD,
    MANIFEST,
    NOTES,
    REJECTS,
    Manifest,
    ShardInfo,
    load_manifest,
    make_index,
    remove_leftovers,
    remove_temporary_files,
    save_manifest,
)
from ..dataset import FindOptions, find_videos
from .executor import BuildError, Folder, RunOptions, run_tasks, with_clear_errors
from .plan import BuildOptions, BuildPlan, describe_differences, make_plan
from .shard_task import Report, ShardTask, index_rows, load_report
from .warning_rows import save_warnings

REJECTS_SHARE, MIN_REJECTS = 0.01, 10
_PLAN = f"{BUILD}/plan.json"


def build_shard_set(
    source: Path | str,
    out: Path | str,
    *,
    options: BuildOptions | None = None,
    run_options: RunOptions | None = None,
    executor: Executor | None = None,
    **find_options: Unpack[FindOptions],
) -> Manifest:
    """Videos -> the shard set in `out`; goes on where an earlier build of the same plan stopped.

    source, out: paths or URLs. executor: where tasks run; None = threads here. find_options: see
    `find_videos`. Raises BuildError, DatasetError, PlanError, StorageError, TaskError;
    KeyboardInterrupt passes, within two seconds.
    """
    options, run_options = options or BuildOptions(), run_options or RunOptions()
    folder = storage.open_folder(storage.normalize(out))
    plan = make_plan(find_videos(source, **find_options), options)
    with _locked(folder):
        manifest = _load_finished(plan, folder)
        if manifest:
            return manifest
        _prepare(plan, folder)
        tasks = shard_tasks(plan, str(folder), run_options.timeout)
        reports = {task.number: report for task in tasks if (report := load_report(task, folder))}
        missing = [task for task in tasks if task.number not in reports]
        check_free_space(plan, folder, len(missing) / len(tasks))
        reports |= run_tasks(missing, folder, run_options, executor)
        return _finish(plan, folder, [reports[task.number] for task in tasks], run_options)


def load_rejects(out: Path | str) -> list[dict[str, str]]:
    """The rejects of a set, in the order of the plan: path, class, key, reason."""
    try:
        lines = storage.open_folder(out).read(REJECTS).decode().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line]


def encode_rejects(rejects: list[dict[str, str]]) -> bytes:
    """What the file of rejects holds."""
    return "".join(json.dumps(reject, sort_keys=True) + "\n" for reject in rejects).encode()


@contextlib.contextmanager
def _locked(out: Folder) -> Iterator[None]:
    """Make the folder; nobody else builds there meanwhile, where the file system can tell."""
    try:
        out.make()
    except OSError as error:
        raise BuildError(f"{out} cannot be made ({error.strerror}): give another --out.") from error
    with out.locked() as is_ours:
        if not is_ours:
            raise BuildError(f"another build is writing {out}: wait for it, or give another --out.")
        yield


def shard_tasks(plan: BuildPlan, out: str, timeout: float) -> list[ShardTask]:
    """One for each shard of the plan, into the folder `out`."""
    group_numbers = {name: number for number, name in enumerate(plan.groups)}
    return [
        ShardTask(
            number=number,
            plan=plan.hash,
            root=plan.dataset.root,
            out=out,
            videos=videos,
            first_video=first_video,
            classes=plan.dataset.classes,
            groups={video.group: group_numbers[video.group] for video in videos if video.group},
            options=plan.options,
            timeout=timeout,
            versions=plan.facts["versions"],
        )
        for number, (videos, first_video) in enumerate(
            zip(plan.shards, plan.first_videos, strict=True)
        )
    ]


def _load_finished(plan: BuildPlan, out: Folder) -> Manifest | None:
    """The set, if this very plan was built before; BuildError if another one was."""
    if out.size(MANIFEST) is None:
        return None
    manifest = load_manifest(str(out))
    if manifest.edits:
        commands = ", ".join(dict.fromkeys(edit.command for edit in manifest.edits))
        raise BuildError(
            f"the set in {out} was changed since it was built ({commands}): see 'har-shards info "
            f"{out}', or give another --out."
        )
    if manifest.plan != plan.hash:
        names = ("sampling", "resize", "grouping", "versions")
        there = {name: getattr(manifest, name) for name in names}
        there["classes"] = list(manifest.classes)
        raise _other_plan(out, there, {name: plan.facts[name] for name in there})
    remove_leftovers(out, manifest)
    return manifest


def _other_plan(out: Folder, there: dict[str, Any], now: dict[str, Any]) -> BuildError:
    text = (
        "; ".join(describe_differences(there, now))
        or "the list of videos or the shard size differs"
    )
    return BuildError(
        f"{out} holds a shard set of another plan ({text}): give another --out, or remove it first."
    )


def _prepare(plan: BuildPlan, out: Folder) -> None:
    """Check that there is nothing yet, or an unfinished build of this plan, which is tidied up."""
    names = with_clear_errors(out, out.names)
    if BUILD in names and out.size(_PLAN) is not None:
        there = json.loads(out.read(_PLAN))
        if there["hash"] != plan.hash:
            raise _other_plan(out, there["facts"], plan.facts)
        remove_temporary_files(out)
        return
    foreign = [name for name in names if name != BUILD]
    if foreign:
        raise BuildError(
            f"{out} is not empty ({foreign[0]}) and no unfinished build: give another --out."
        )
    text = json.dumps({"hash": plan.hash, "facts": plan.facts}, indent=1)
    with_clear_errors(out, out.write, _PLAN, text.encode())


def check_free_space(plan: BuildPlan, out: Folder, share: float) -> None:
    """Raises BuildError where `share` of the shards does not fit."""
    needed, free = int(plan.max_bytes * share), out.free_bytes()
    if free is not None and needed > free:
        raise BuildError(
            f"the shards need up to {needed / 1e9:.2f} GB and {out} has {free / 1e9:.2f} GB free: "
            "give an --out with more room."
        )


def _finish(
    plan: BuildPlan, out: Folder, reports: list[Report], run_options: RunOptions
) -> Manifest:
    """Rejects, index, manifest; then what only an unfinished build needs is removed."""
    rejects = [reject for report in reports for reject in report["rejects"]]
    with_clear_errors(out, out.write, REJECTS, encode_rejects(rejects))
    if notes := plan.dataset.notes_json():
        with_clear_errors(out, out.write, NOTES, notes)
    check_rejects(rejects, len(plan.dataset.videos), out, run_options.max_rejects)
    with_clear_errors(out, save_warnings, out, reports)
    reports = [report for report in reports if report["shard"]]
    rows = [row for number, report in enumerate(reports) for row in index_rows(report, number)]
    manifest = Manifest(
        clip_shape=plan.options.clip_shape,
        sampling=plan.facts["sampling"],
        resize=plan.facts["resize"],
        classes=plan.dataset.classes,
        groups=plan.groups,
        grouping=plan.dataset.grouping,
        shards=tuple(ShardInfo(**report["shard"]) for report in reports),
        plan=plan.hash,
        versions=plan.facts["versions"],
        rejects=len(rejects),
        index_sha256="",
        index=make_index(rows),
    )
    saved: Manifest = with_clear_errors(out, save_manifest, manifest, str(out))
    remove_leftovers(out, saved)
    return saved


def check_rejects(
    rejects: list[dict[str, str]], num_videos: int, out: Folder, max_rejects: int | None
) -> None:
    """Raises BuildError where there are too many. max_rejects: see `RunOptions`."""
    if max_rejects is None:
        max_rejects = max(MIN_REJECTS, int(REJECTS_SHARE * num_videos))
    if len(rejects) <= max_rejects and len(rejects) < num_videos:
        return
    first = f"{rejects[0]['path']}: {rejects[0]['reason']}"
    if len(rejects) == num_videos:
        raise BuildError(
            f"none of the {num_videos} videos gives a clip ({first}): see {out}/{REJECTS}."
        )
    raise BuildError(
        f"{len(rejects)} of {num_videos} videos give no clip ({first}), more than --max-rejects "
        f"{max_rejects} allows: see {out}/{REJECTS}, mend them or allow more, and run the same "
        "command again."
    )
