"""Build a shard set: plan -> one task a shard, through an executor -> index and manifest, last.

A set is whole or it is not there. Finished shards stay when a build is interrupted, at whatever
moment; the same command then makes only what is missing and ends with the same bytes. A build with
other options or videos refuses to mix with what is there, and says what differs.

Odd: the local executor is threads. Each thread drives a decoder process (`har.pipeline.decode.decoder_process`), and
hashes and writes while that decodes the next video; both release the interpreter lock. Any other
executor (`har.pipeline.build.dask`) gets the same tasks; videos and output may be URLs (`har.pipeline.build.storage`).
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

from ...shards.format import shard_set
from ...shards.format.shard_set import INDEX, MANIFEST, REJECTS, Manifest, ShardInfo
from .. import dataset
from . import plan as planning
from . import shard_task, storage
from .executor import BuildError, Folder, Limits, guarded, run
from .plan import Options, Plan
from .shard_task import BUILD, Report, Task
from .storage import LocalFolder

REJECTS_SHARE, REJECTS_LEAST = 0.01, 10
_PLAN = f"{BUILD}/plan.json"
_FILES = "|".join(map(re.escape, (INDEX, MANIFEST, REJECTS)))
_TEMPORARY = re.compile(rf"\.(shard-\d+\.tar|{_FILES})\..*tmp")


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

    source, out: paths or URLs; classes, group_regex: see `ucf101.find`. executor: where tasks run;
    None = threads here. Raises BuildError, DatasetError, PlanError, StoreError, TaskError;
    KeyboardInterrupt passes, within two seconds.
    """
    options, limits, folder = options or Options(), limits or Limits(), storage.open_folder(out)
    plan = planning.make(dataset.find(source, classes=classes, group_regex=group_regex), options)
    done = _finished_set(plan, folder)
    if done:
        return done
    _prepare(plan, folder)
    with _alone(folder):
        done = _finished_set(plan, folder)  # by another build, since we looked
        if done:
            return done
        _sweep(folder, folder.names())
        tasks = _tasks(plan, str(folder), limits.timeout)
        reports = {
            one.number: report for one in tasks if (report := shard_task.finished(one, folder))
        }
        missing = [one for one in tasks if one.number not in reports]
        _check_room(plan, folder, len(missing) / len(tasks))
        reports |= run(missing, folder, limits, executor)
        return _finish(plan, folder, [reports[one.number] for one in tasks], limits)


@contextlib.contextmanager
def _alone(out: Folder) -> Iterator[None]:
    """Nobody else builds here meanwhile, where the file system can tell; else BuildError."""
    with contextlib.ExitStack() as held:
        if isinstance(out, LocalFolder) and not held.enter_context(out.locked()):
            raise BuildError(f"another build is writing {out}: wait for it, or give another --out.")
        yield


def load(out: Path | str) -> Manifest:
    """The set at a path or a URL, its index too; of a URL `root` is no place to read clips from."""
    folder = storage.open_folder(out)
    if isinstance(folder, LocalFolder):
        return shard_set.load(folder.path)
    with tempfile.TemporaryDirectory(prefix="har-") as scratch:
        for name in (INDEX, MANIFEST):
            try:
                (Path(scratch) / name).write_bytes(folder.read(name))
            except FileNotFoundError as error:
                raise BuildError(f"{folder} is not a shard set (no {name}).") from error
        return shard_set.load(scratch)


def _tasks(plan: Plan, out: str, timeout: float) -> list[Task]:
    number = {name: at for at, name in enumerate(plan.groups)}
    return [
        Task(
            number=at,
            plan=plan.hash,
            root=plan.dataset.place,
            out=out,
            videos=videos,
            first=first,
            classes=plan.dataset.classes,
            groups={video.group: number[video.group] for video in videos if video.group},
            options=plan.options,
            timeout=timeout,
            versions=plan.facts["versions"],
        )
        for at, (videos, first) in enumerate(zip(plan.shards, plan.first, strict=True))
    ]


def _finished_set(plan: Plan, out: Folder) -> Manifest | None:
    """The set, if this very plan was built before; BuildError if another one was."""
    if out.size(MANIFEST) is None:
        return None
    found = load(str(out))
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


def _refuse(out: Folder, lines: list[str]) -> None:
    what = "; ".join(lines) or "the list of videos or the shard size differs"
    raise BuildError(
        f"{out} holds a shard set of another plan ({what}): give another --out, or remove it first."
    )


def _prepare(plan: Plan, out: Folder) -> None:
    """Check that there is nothing yet, or an unfinished build of this plan."""
    names = guarded(out, out.names)
    if BUILD in names and out.size(_PLAN) is not None:
        was = json.loads(out.read(_PLAN))
        if was["hash"] != plan.hash:
            _refuse(out, planning.differences(was["facts"], plan.facts))
    else:
        foreign = [name for name in names if name != BUILD]
        if foreign:
            raise BuildError(
                f"{out} is not empty ({foreign[0]}) and no unfinished build: give another --out."
            )
        try:
            out.make()
        except OSError as error:
            raise BuildError(
                f"{out} cannot be made ({error.strerror}): give another --out."
            ) from error
        text = json.dumps({"hash": plan.hash, "facts": plan.facts}, indent=1)
        guarded(out, out.write, _PLAN, text.encode())


def _sweep(out: Folder, names: list[str]) -> None:
    """Remove the temporary files of a build that was killed, and no other file of that kind."""
    for name in names:
        if _TEMPORARY.fullmatch(name):
            out.remove(name)


def _check_room(plan: Plan, out: Folder, share: float) -> None:
    needed, free = int(plan.bytes * share), out.free()
    if free is not None and needed > free:
        raise BuildError(
            f"the shards need up to {needed / 1e9:.2f} GB and {out} has {free / 1e9:.2f} GB free: "
            "give an --out with more room."
        )


def _finish(plan: Plan, out: Folder, reports: list[Report], limits: Limits) -> Manifest:
    """Rejects, index, manifest; then what only an unfinished build needs is removed."""
    rejects = [reject for report in reports for reject in report["rejects"]]
    lines = "".join(json.dumps(reject, sort_keys=True) + "\n" for reject in rejects)
    guarded(out, out.write, REJECTS, lines.encode())
    _check_rejects(rejects, len(plan.dataset.videos), out, limits.max_rejects)
    made = [report for report in reports if report["shard"]]
    rows = [row for at, report in enumerate(made) for row in shard_task.row_of(report, at)]
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
        index=shard_set.make_index(rows),
    )
    saved: Manifest = guarded(out, _save, whole, out)
    _clean(out)
    return saved


def _save(whole: Manifest, out: Folder) -> Manifest:
    """Index and manifest, the manifest last."""
    if isinstance(out, LocalFolder):
        return shard_set.save(whole, out.path)
    with tempfile.TemporaryDirectory(prefix="har-") as scratch:
        saved = shard_set.save(whole, Path(scratch))
        for name in (INDEX, MANIFEST):
            out.write(name, (Path(scratch) / name).read_bytes())
    return saved


def _check_rejects(
    rejects: list[dict[str, str]], videos: int, out: Folder, most: int | None
) -> None:
    if most is None:
        most = max(REJECTS_LEAST, int(REJECTS_SHARE * videos))
    if len(rejects) > most or len(rejects) == videos:
        first = rejects[0]
        raise BuildError(
            f"{len(rejects)} of {videos} videos give no clip ({first['path']}: {first['reason']}), "
            f"more than --max-rejects {most} allows: see {out}/{REJECTS}, mend them or allow more, "
            "and run the same command again."
            if len(rejects) < videos
            else f"none of the {videos} videos gives a clip ({first['path']}: {first['reason']}): "
            f"see {out}/{REJECTS}."
        )


def _clean(out: Folder) -> None:
    out.remove(BUILD)
    _sweep(out, out.names())


def rejects_of(out: Path | str) -> list[dict[str, str]]:
    """The rejects of a set, in the order of the plan."""
    try:
        lines = storage.open_folder(out).read(REJECTS).decode().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line]
