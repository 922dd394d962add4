"""Kill an edit at moments at which it changes files, and look at what is left. Run as a program:

    python killed_edits.py EDIT FOLDER MOMENTS

FOLDER holds `pristine` (sets `set` and `other`, videos `videos`, as the edit needs them). For each
moment the sets are copied, the edit runs in a child process that kills itself with SIGKILL just
before it opens a file to write, renames, links or removes one; MOMENTS: how many of these moments,
at random; 0 = all. Then the set must be the old one or the new one, without a fault (of a build: no
set, or the new one); and the same edit, run again, must end as if nothing had happened. A process
of its own, since it forks.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from made_builds import build

from har.pipeline.build import AddOptions, RunOptions, add_videos
from har.pipeline.dataset import find_videos
from har.shards.edit import compact_set, merge_sets, relabel_clips, remove_clips, subset_set
from har.shards.format import ShardSetError, load_manifest, verify_full

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.link", "os.rmdir", "os.mkdir")


def add(work: Path) -> None:
    add_videos(
        work / "set",
        lambda: find_videos(work.parent / "pristine" / "videos"),
        add_options=AddOptions("skip"),
        run_options=RunOptions(workers=1, quiet=True),
    )


def repair(work: Path) -> None:
    run_options = RunOptions(workers=1, quiet=True, check="full")
    build(work.parent / "pristine" / "videos", work / "set", run_options=run_options)


EDITS: dict[str, tuple[Callable[[Path], object], str]] = {  # what is done, and to which set
    "add": (add, "set"),
    "build": (lambda work: build(work.parent / "pristine" / "videos", work / "out"), "out"),
    "repair": (repair, "set"),
    "remove": (lambda work: remove_clips(work / "set", ["*_c01"]), "set"),
    "relabel": (lambda work: relabel_clips(work / "set", [{"key": "*", "label": "new"}]), "set"),
    "compact": (lambda work: compact_set(work / "set"), "set"),
    "merge": (lambda work: merge_sets(work / "set", work / "other", work / "out"), "out"),
    "subset": (lambda work: subset_set(work / "set", work / "out", per_class=1), "out"),
}


def arm(moment: int) -> list[int]:
    """From now on count changes of files, and die before the one with number `moment`."""
    count = [0]

    def hook(event: str, args: tuple) -> None:
        if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
            count[0] += 1
            if count[0] == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def run(edit: Callable[[Path], object], work: Path, moment: int = 0) -> int:
    """In a child; -> how many changes there were, -1 where it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = arm(moment)
        try:
            edit(work)
            os.write(writer, str(count[0]).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert text or os.WTERMSIG(status) == signal.SIGKILL, status
    return int(text) if text else -1


def check(name: str, folder: Path, num_moments: int) -> str:
    """Run this as a program; -> what it says."""
    command = [sys.executable, __file__, name, str(folder), str(num_moments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digest(root: Path) -> str:
    """Of a set; "" where there is none, "faulty" where something is wrong with it."""
    try:
        manifest = load_manifest(root)
    except ShardSetError:
        return ""
    return "faulty" if verify_full(manifest, workers=1) else manifest.digest


def main(name: str, folder: Path, num_moments: int) -> None:
    edit, target = EDITS[name]
    work, pristine = folder / "work", folder / "pristine"
    parts = {part for part in ("set", "other") if (pristine / part).exists()}

    def copy() -> None:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for part in parts:
            shutil.copytree(pristine / part, work / part)

    copy()
    old = digest(work / target)
    total = run(edit, work)
    new, files = digest(work / target), sorted(os.listdir(work / target))
    assert new not in ("", "faulty", old)
    assert old != "faulty" or name == "repair"
    allowed = {old, new, *([""] if name == "repair" else [])}
    moments = list(range(1, total + 1))
    if num_moments:
        moments = sorted(random.Random(name).sample(moments, num_moments))
    seen = {"old": 0, "new": 0}
    for moment in moments:
        copy()
        assert run(edit, work, moment) == -1
        left = digest(work / target)
        assert left in allowed, moment
        seen["new" if left == new else "old"] += 1
        for part in parts - {target}:
            assert digest(work / part) == digest(pristine / part)
        if left != new:
            assert run(edit, work) >= 0, moment
            assert digest(work / target) == new, moment
            assert sorted(os.listdir(work / target)) == files, moment
    print(f"{name}: {len(moments)} of {total} moments, {seen['old']} old, {seen['new']} new")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
