"""Build a shard set: plan -> one task a shard, through an executor -> index and manifest, last.

A set is whole or it is not there. Finished shards stay when a build is interrupted, at whatever
moment; the same command then makes only what is missing and ends with the same bytes. It also
mends: rejected videos that changed, or failed for a reason that can pass, are decoded again, and
shards of a finished set that are missing or wrong are made again (`existing`). A build with other
options or videos refuses to mix with what is there, and says what differs.

The local executor is threads. Each drives a decoder process, and hashes and writes while that
decodes the next video; both release the interpreter lock. Any other executor (`dask`) gets the same
tasks; videos and output may be URLs.
"""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Unpack

from ...shards import storage
from ...shards.format import (
    CLASSES,
    MANIFEST,
    REJECTS,
    Manifest,
    encode_classes,
    remove_leftovers,
    remove_temporary_files,
    save_manifest,
)
from ...shards.storage import Folder
from ..dataset import FindOptions, Notes, find_videos, save_notes
from .estimate import describe_bytes, describe_space
from .executor import BuildError, RunOptions, clear_errors, run_calls, run_tasks
from .existing import PLAN, find_existing
from .plan import BuildOptions, BuildPlan, make_plan
from .shapes import describe_shapes
from .shard_task import DECODERS, Report, ShardTask, join_reports, retry_rejects
from .video_rows import VideoRow, encode_rows, load_rejects, save_warnings

REJECTS_SHARE, MIN_REJECTS = 0.01, 10


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
    tasks = shard_tasks(plan, str(folder), run_options.timeout)
    with _locked(folder), contextlib.closing(DECODERS), clear_errors(folder):
        existing = find_existing(plan, tasks, folder, run_options, executor)
        reports = retry_rejected(tasks, existing.reports, run_options, executor)
        missing = [task for task in tasks if task.number not in reports]
        if existing.manifest is not None and not missing:
            return _keep_finished(existing.manifest, reports, folder)
        facts = {"hash": plan.hash, "layout": plan.layout, "facts": plan.facts}
        folder.write(PLAN, json.dumps(facts, indent=1).encode())
        check_free_space(plan, folder, len(missing) / len(tasks), run_options)
        _reopen(tasks, reports, folder)
        if missing:
            reports |= run_tasks(missing, folder, run_options, executor)
        return _finish(plan, folder, [reports[task.number] for task in tasks], run_options)


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
            plan=plan.layout,
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


def retry_rejected(
    tasks: list[ShardTask],
    reports: dict[int, Report],
    run_options: RunOptions,
    executor: Executor | None,
) -> dict[int, Report]:
    """Look again at the videos that gave no clip; -> the reports of shards that stay as they are.

    A shard is made again where one of its videos gives a clip now.
    """
    before = {n: report["rejects"] for n, report in reports.items() if report["rejects"]}
    if not before:
        return reports
    task_of = {task.number: task for task in tasks}
    after: dict[int, list[VideoRow]] = run_calls(
        retry_rejects,
        {number: (task_of[number], rejects) for number, rejects in before.items()},
        {number: len(rejects) for number, rejects in before.items()},
        "rejected videos", run_options, executor,
    )  # fmt: skip
    mended = {number for number, rejects in before.items() if len(after[number]) < len(rejects)}
    num_before, num_after = (sum(map(len, rejects.values())) for rejects in (before, after))
    if mended:
        run_options.say(
            f"rejected videos that give a clip now: {num_before - num_after} of {num_before}; "
            f"shards made again: {len(mended)} of {len(tasks)}"
        )
    return {
        number: {**report, "rejects": after.get(number, [])}
        for number, report in reports.items()
        if number not in mended
    }


def _keep_finished(manifest: Manifest, reports: dict[int, Report], out: Folder) -> Manifest:
    """Nothing of the set is made again; the rejects may have other reasons now."""
    rejects = [reject for number in sorted(reports) for reject in reports[number]["rejects"]]
    before = load_rejects(str(out))
    sizes = {reject["key"]: reject["size"] for reject in before if "size" in reject}
    for reject in rejects:  # with which `plan` was made
        reject["size"] = sizes.get(reject["key"], reject["size"])
    if rejects != before or out.size(REJECTS) is None:
        out.write(REJECTS, encode_rows(rejects))
    if out.size(CLASSES) is None:  # of a set that was built before there was such a file
        with contextlib.suppress(OSError, storage.StorageError):  # no reader needs it
            out.write(CLASSES, encode_classes(manifest.classes))
    remove_leftovers(out, manifest)
    return manifest


def _reopen(tasks: list[ShardTask], reports: dict[int, Report], out: Folder) -> None:
    """Make a finished set an unfinished build, in which the shards of `reports` are whole.

    The manifest goes last: until then the set is what it was.
    """
    if out.size(MANIFEST) is not None:
        for number, report in reports.items():
            text = json.dumps(report).encode()
            out.write(tasks[number].report_name, text)
        out.remove(MANIFEST)
    remove_temporary_files(out)


def check_free_space(plan: BuildPlan, out: Folder, share: float, run_options: RunOptions) -> None:
    """Say what `share` of the shards takes. Raises BuildError where that does not fit."""
    needed, free = int(plan.max_bytes * share), out.free_bytes()
    if free is not None and needed > free:
        raise BuildError(
            f"the shards need up to {describe_bytes(needed)} and {out} has {describe_bytes(free)} "
            "free: make room, or take a folder with more."
        )
    if needed:
        num_videos, num_classes = round(len(plan.dataset.videos) * share), len(plan.dataset.classes)
        run_options.say(describe_space(num_videos, num_classes, needed, free))


def _finish(
    plan: BuildPlan, out: Folder, reports: list[Report], run_options: RunOptions
) -> Manifest:
    """Rejects, index, manifest; then what only an unfinished build needs is removed."""
    rejects = [reject for report in reports for reject in report["rejects"]]
    out.write(REJECTS, encode_rows(rejects))
    save_notes(out, notes_of(plan, reports))
    check_rejects(rejects, len(plan.dataset.videos), out, run_options.max_rejects)
    save_warnings(out, reports)
    manifest = plan.manifest(*join_reports(reports), len(rejects))
    saved = save_manifest(manifest, str(out))
    remove_leftovers(out, saved)
    return saved


def notes_of(plan: BuildPlan, reports: list[Report]) -> Notes:
    """What was left out, guessed or changed, and the shapes of the videos."""
    shapes = {report["shard"]["name"]: report["shapes"] for report in reports if report["shapes"]}
    sentence = describe_shapes(shapes, len(plan.dataset.videos), plan.options)
    return plan.dataset.describe(sentence, shapes)


def check_rejects(
    rejects: list[VideoRow], num_videos: int, out: Folder, max_rejects: int | None
) -> None:
    """Raises BuildError where there are too many. max_rejects: see `RunOptions`."""
    if max_rejects is None:
        max_rejects = max(MIN_REJECTS, int(REJECTS_SHARE * num_videos))
    if len(rejects) <= max_rejects and len(rejects) < num_videos:
        return
    first = f"{rejects[0]['path']}: {rejects[0]['reason']}"
    if len(rejects) == num_videos:
        raise BuildError(
            f"none of the {num_videos} videos gives a clip ({first}): see {out}/{REJECTS}, mend "
            "them and run the same command again."
        )
    raise BuildError(
        f"{len(rejects)} of {num_videos} videos give no clip ({first}), more than --max-rejects "
        f"{max_rejects} allows: see {out}/{REJECTS}, mend them or allow more, and run the same "
        "command again."
    )
