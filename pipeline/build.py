"""Build a shard set: plan -> one task a shard, through an executor -> index and manifest, last.

A set is whole or it is not there. Finished shards stay when a build is interrupted, at whatever
moment; the same command then makes only what is missing and ends with the same bytes. A build with
other options or videos refuses to mix with what is there, and says what differs.

Odd: the local executor is threads. Each thread drives a decoder process (`pipeline.decoder`), and
hashes and writes while that decodes the next video; both release the interpreter lock.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import plan as planning
from pipeline import task, ucf101
from pipeline.plan import Options, Plan
from pipeline.progress import Progress
from pipeline.task import BUILD, Report, Stopped, Task
from shards import manifest
from shards.manifest import MANIFEST, REJECTS, Manifest, ShardInfo

TIMEOUT = 300.0
REJECTS_SHARE, REJECTS_LEAST = 0.01, 10
_PLAN = "plan.json"


class BuildError(ValueError):
    """A build that cannot start or go on; the text is one sentence with the way out."""


@dataclass(frozen=True)
class Limits:
    """How a build runs; none of it changes the bytes of the set.

    workers: None = one a core. timeout: seconds a video may take. max_rejects: None = 1% of the
    videos, at least 10. step: called after each video, from any thread (not with an executor).
    """

    workers: int | None = None
    timeout: float = TIMEOUT
    max_rejects: int | None = None
    quiet: bool = False
    step: Callable[[], None] | None = None


def build(
    source: Path | str,
    out: Path | str,
    *,
    options: Options | None = None,
    limits: Limits | None = None,
    classes: Path | None = None,
    group_regex: str | None = None,
    executor: Executor | None = None,
) -> Manifest:
    """Videos -> the shard set in `out`; goes on where an earlier build of the same plan stopped.

    source, classes, group_regex: see `ucf101.find`. executor: where tasks run; None = threads here.
    Raises BuildError, DatasetError, PlanError; KeyboardInterrupt passes, within two seconds.
    """
    options, limits, out = options or Options(), limits or Limits(), Path(out).absolute()
    plan = planning.make(ucf101.find(source, classes=classes, group_regex=group_regex), options)
    done = _finished_set(plan, out)
    if done:
        return done
    _prepare(plan, out)
    tasks = _tasks(plan, out, limits.timeout)
    reports = {one.number: report for one in tasks if (report := task.finished(one))}
    missing = [one for one in tasks if one.number not in reports]
    _check_room(plan, out, len(missing) / len(tasks))
    reports |= _run(missing, limits, executor)
    return _finish(plan, out, [reports[one.number] for one in tasks], limits)


def _tasks(plan: Plan, out: Path, timeout: float) -> list[Task]:
    number = {name: at for at, name in enumerate(plan.groups)}
    return [
        Task(
            number=at,
            plan=plan.hash,
            root=plan.dataset.root.absolute(),
            out=out,
            videos=videos,
            first=first,
            classes=plan.dataset.classes,
            groups={video.group: number[video.group] for video in videos if video.group},
            options=plan.options,
            timeout=timeout,
        )
        for at, (videos, first) in enumerate(zip(plan.shards, plan.first, strict=True))
    ]


def _finished_set(plan: Plan, out: Path) -> Manifest | None:
    """The set, if this very plan was built before; BuildError if another one was."""
    if not (out / MANIFEST).is_file():
        return None
    found = manifest.load(out)
    if found.plan != plan.hash:
        was = {
            "sampling": found.sampling,
            "resize": found.resize,
            "classes": list(found.classes),
            "grouping": found.grouping,
            "versions": found.versions,
        }
        now = {name: plan.facts[name] for name in was}
        _refuse(out, planning.differences(was, now))
    _clean(out)
    return found


def _refuse(out: Path, lines: list[str]) -> None:
    what = "; ".join(lines) or "the list of videos or the shard size differs"
    raise BuildError(
        f"{out} holds a shard set of another plan ({what}): give another --out, or remove it first."
    )


def _prepare(plan: Plan, out: Path) -> None:
    """Make the folder, or check that what is in it is an unfinished build of this plan."""
    try:
        (out / BUILD).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"{out} cannot be made ({error.strerror}): give another --out.") from error
    known = out / BUILD / _PLAN
    if known.is_file():
        was = json.loads(known.read_bytes())
        if was["hash"] != plan.hash:
            _refuse(out, planning.differences(was["facts"], plan.facts))
    else:
        foreign = [path.name for path in out.iterdir() if path.name != BUILD]
        if foreign:
            (out / BUILD).rmdir()
            raise BuildError(
                f"{out} is not empty ({foreign[0]}) and no unfinished build: give another --out."
            )
        text = json.dumps({"hash": plan.hash, "facts": plan.facts}, indent=1)
        _guarded(out, manifest.write_atomically, known, text.encode())
    for path in out.glob(".*.tmp"):
        path.unlink(missing_ok=True)  # of a run that was killed


def _check_room(plan: Plan, out: Path, share: float) -> None:
    needed, free = int(plan.bytes * share), shutil.disk_usage(out).free
    if needed > free:
        raise BuildError(
            f"the shards need up to {needed / 1e9:.2f} GB and {out} has {free / 1e9:.2f} GB free: "
            "give an --out with more room."
        )


def _run(tasks: list[Task], limits: Limits, executor: Executor | None) -> dict[int, Report]:
    """Run the tasks that are missing; -> their reports by number."""
    videos = sum(len(one.videos) for one in tasks)
    progress = Progress(videos, "build", quiet=limits.quiet)
    try:
        if executor is not None:
            futures = [executor.submit(task.run, one) for one in tasks]
            return _collect(tasks, futures, progress)

        def step() -> None:
            progress.step()
            if limits.step:
                limits.step()

        workers = max(1, limits.workers or os.cpu_count() or 1)
        with ThreadPoolExecutor(workers, thread_name_prefix="shard") as pool:
            try:
                futures = [pool.submit(task.run, one, step) for one in tasks]
                return _collect(tasks, futures, None)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                task.stop()
                raise
    finally:
        progress.close()
        task.close()


def _collect(
    tasks: list[Task], futures: Iterable[Future[Report]], progress: Progress | None
) -> dict[int, Report]:
    """Wait for all; the first error ends it."""
    number = dict(zip(futures, tasks, strict=True))
    reports: dict[int, Report] = {}
    waiting = set(number)
    while waiting:
        ready, waiting = wait(waiting, timeout=0.5, return_when="FIRST_COMPLETED")
        for future in ready:
            one = number[future]
            reports[one.number] = _guarded(one.out, future.result)
            if progress:
                progress.step(len(one.videos))
    return reports


def _guarded(out: Path, act: Any, *given: Any) -> Any:
    """What the disk can say, as one sentence."""
    try:
        return act(*given)
    except Stopped:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildError(
                f"the disk of {out} is full: make room and run the same command again, finished "
                "shards are kept."
            ) from error
        raise BuildError(
            f"{out} cannot be written ({error.strerror or error}): mend that and run the same "
            "command again, finished shards are kept."
        ) from error


def _finish(plan: Plan, out: Path, reports: list[Report], limits: Limits) -> Manifest:
    """Rejects, index, manifest; then what only an unfinished build needs is removed."""
    rejects = [reject for report in reports for reject in report["rejects"]]
    lines = "".join(json.dumps(reject, sort_keys=True) + "\n" for reject in rejects)
    _guarded(out, manifest.write_atomically, out / REJECTS, lines.encode())
    _check_rejects(rejects, len(plan.dataset.videos), out, limits.max_rejects)
    made = [report for report in reports if report["shard"]]
    rows = [row for at, report in enumerate(made) for row in task.row_of(report, at)]
    whole = Manifest(
        clip_shape=plan.options.clip_shape,
        sampling=plan.facts["sampling"],
        resize=plan.facts["resize"],
        classes=plan.dataset.classes,
        groups=plan.groups,
        grouping=plan.dataset.grouping,
        shards=tuple(ShardInfo(**report["shard"]) for report in made),
        plan=plan.hash,
        versions=plan.facts["versions"],
        rejects=len(rejects),
        index_sha256="",
        index=manifest.make_index(rows),
    )
    saved: Manifest = _guarded(out, manifest.save, whole, out)
    _clean(out)
    return saved


def _check_rejects(rejects: list[dict[str, str]], videos: int, out: Path, most: int | None) -> None:
    if most is None:
        most = max(REJECTS_LEAST, int(REJECTS_SHARE * videos))
    if len(rejects) > most or len(rejects) == videos:
        first = rejects[0]
        raise BuildError(
            f"{len(rejects)} of {videos} videos give no clip ({first['path']}: {first['reason']}), "
            f"more than --max-rejects {most} allows: see {out / REJECTS}, mend them or allow more, "
            "and run the same command again."
            if len(rejects) < videos
            else f"none of the {videos} videos gives a clip ({first['path']}: {first['reason']}): "
            f"see {out / REJECTS}."
        )


def _clean(out: Path) -> None:
    shutil.rmtree(out / BUILD, ignore_errors=True)
    for path in out.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def rejects_of(out: Path) -> list[dict[str, str]]:
    """The rejects of a set, in the order of the plan."""
    path = Path(out) / REJECTS
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]
