"""Every command leaves all files but its own as they were: the user's, and everybody else's.

Commands run with a fresh home, temporary folder and working folder, in which files with names that
libraries like (`data/`, `chunks/`, `.cache/`, `*.tmp`, ...) stand beside and inside every input and
output. LitData's `optimize` emptied the folders /tmp/data and /tmp/chunks of whoever ran
har-bench-loader; this is the test that would have shown it. What may be written: docs/files.md.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import signal
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from command_server import CommandServer
from commands import SCRIPTS, load_command
from made_server import serving
from page_server import Client
from semaphores import needs_semaphores

NAMES = (
    "data/kept", "chunks/kept", "cache/kept", ".cache/kept", ".cache/har/kept",
    ".cache/matplotlib/kept", ".cache/torch/hub/kept", ".config/kept", ".lightning/chunks/kept",
    "runs/kept", "reports/kept", "reports/latest/kept", "models/kept.py", "training/kept.py",
    "litdata/kept", "mds/kept", "videos/kept", "shards/kept", "gradio/kept",
    "dask-worker-space/kept", "dask-scratch-space/kept", "lib/kept",
    "har-kept/kept", "index.json", "manifest.json", "kept.tmp", ".kept.tmp", "kept.txt",
)  # fmt: skip
# What libraries may add whatever the command (docs/files.md).
CACHES = ("home/.cache/matplotlib/", "home/.config/matplotlib/", "tmp/torchinductor_")
TINY_OPTIONS = "hidden=[4],stem_channels=4"
TINY_MODEL = f"--model convlstm --model-options {TINY_OPTIONS}"
Snapshot = dict[str, tuple[int, bytes]]


class World:
    """Folders `tmp`, `home` and `work` full of other people's files, and commands run in them."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root, self._log = root, log
        self.work = root / "work"
        self._kept: set[str] = set()
        self._outside: list[Path] = []  # made by us in the system's temporary folder
        for folder in ("tmp", "home", "work"):
            (root / folder).mkdir(parents=True)
            self.plant(folder)
        for name in ("data", "chunks"):
            with contextlib.suppress(FileExistsError):  # somebody's: left alone
                Path("/tmp", name).mkdir()
                self._outside.append(Path("/tmp", name))
                self.plant(f"/tmp/{name}", ("kept",))
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(root / "home"), "TMPDIR": str(root / "tmp"),
            "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "2000",
        }  # fmt: skip
        self._server = CommandServer(self.work, environment)

    def close(self) -> None:
        self._server.close()
        for folder in self._outside:
            shutil.rmtree(folder)

    def plant(self, folder: str, names: tuple[str, ...] = NAMES) -> None:
        """Put files that must stay into `folder`, where they are not there already."""
        for name in names:
            path = self.root / folder / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{folder}/{name}")
                self._kept.add(str(path))

    def check(
        self,
        line: str,
        own: tuple[str, ...] = (),
        *,
        exit_code: int = 0,
        settings: dict[str, object] | None = None,
    ) -> str:
        """Run the command `line` in `work`; -> its output. own: paths below `work` it may write."""
        with self.unchanged(own):
            self._server.start(shlex.split(line), self._log, settings)
            code = self._server.wait()
            text = self._log.read_text()
            assert code == exit_code, text
        return text

    @contextlib.contextmanager
    def running(self, line: str) -> Iterator[str]:
        """A server, ended by Ctrl-C; -> the URL that it prints."""
        process = self._server.start(shlex.split(line), self._log)
        try:
            deadline = time.monotonic() + 240
            while not (url := re.search(r"http://\S+", self._log.read_text())):
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.1)
            yield url[0]
        finally:
            os.kill(process, signal.SIGINT)
            code = self._server.wait()
        assert code == 0, self._log.read_text()

    @contextlib.contextmanager
    def unchanged(self, own: tuple[str, ...] = ()) -> Iterator[None]:
        """What the block changes, adds or removes is below `own` (of `work`) or one of CACHES."""
        before = self._snapshot()
        yield
        after = self._snapshot()
        changed = {path for path in before.keys() | after if before.get(path) != after.get(path)}
        allowed = tuple(
            os.path.normpath(self.root / path) + "/" * path.endswith("/")
            for path in (*(f"work/{path}" for path in own), *CACHES)
        )
        assert not sorted(path for path in changed if not path.startswith(allowed))
        assert not sorted(changed & self._kept)
        assert not [path for path in after.keys() - before if path.endswith((".tmp", ".part"))]

    def _snapshot(self) -> Snapshot:
        """Every file, and every empty folder, by its path."""
        snapshot = {}
        for path in itertools.chain.from_iterable(
            folder.rglob("*") for folder in (self.root, *self._outside)
        ):
            if path.is_symlink() or not path.is_dir():
                content = path.read_bytes() if path.is_file() else b""
                snapshot[str(path)] = (path.lstat().st_mtime_ns, content)
            elif not any(path.iterdir()):
                snapshot[f"{path}/"] = (0, b"")
        return snapshot


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With videos in data/videos, a shard set in data/shards, a tested run in runs/convlstm."""
    made = World(tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("log") / "output.txt")
    try:
        made.check("har-shards synthetic data/videos --groups 5 --clips 1", ("data/videos/",))
        made.plant("work/data/videos")
        build = "har-shards build data/videos --out data/shards --frames 4 --size 32x40 --workers 1"
        made.check(build, ("data/shards/",))
        made.plant("work/data/shards")
        made.check(f"har-train {TINY_MODEL} --frames 4 --size 28 --epochs 1", ("runs/convlstm/",))
        made.plant("work/runs/convlstm")
        made.check("har-eval runs/convlstm", ("runs/convlstm/",))
        yield made
    finally:
        made.close()


VIDEO = "data/videos/SwipeUp/v_SwipeUp_g01_c01.avi"
COMMANDS = {  # a line: what it may write below the working folder
    "har-shards synthetic data/videos --groups 5 --clips 1": ("data/videos/",),
    "har-shards build data/videos --out data/shards --frames 4 --size 32x40": (),
    "har-shards info data/shards --split grouped": (),
    "har-shards verify data/shards": (),
    "har-shards preview data/shards": ("sheet.png",),
    "har-shards subset data/shards --per-class 4 -o data/small": ("data/small/",),
    "har-shards add data/small data/videos --existing skip --workers 1": ("data/small/",),
    "har-shards remove data/small --key 'v_SwipeUp_g01*'": ("data/small/",),
    "har-shards info data/small --split grouped --keys keys.csv": ("keys.csv",),
    "har-shards relabel data/small keys.csv": ("data/small/",),
    "har-shards compact data/small": ("data/small/",),
    "har-shards merge data/small data/shards --skip-existing -o data/both": ("data/both/",),
    f"har-pretrain {TINY_MODEL} --frames 2 --size 28 --epochs 1": ("runs/convlstm-pretrain/",),
    "har-train --resume runs/convlstm --epochs 2": ("runs/convlstm/",),
    "har-eval runs/convlstm": ("runs/convlstm/",),
    f"har-predict runs/convlstm {VIDEO} --window 0.5 --timeline t.png --annotate a.mp4 --cam c.gif "
    "-o a.jsonl": ("t.png", "a.mp4", "c.gif", "a.jsonl"),
    "har-export runs/convlstm -o net.pt2": ("net.pt2", "net.pt2.json"),
    "har-export runs/convlstm -o net.onnx --example":
        ("net.onnx", "net.onnx.json", "net_example.py"),
    "har-report runs/convlstm --cards": ("reports/latest/", "runs/convlstm/MODEL_CARD.md"),
    "har-models list": (),
    "har-models show convlstm --plot net.svg": ("net.svg",),
}  # fmt: skip
TRAIN_TINY = f"{TINY_MODEL} --frames 4 --size 28 --epochs 1"
SLOW_COMMANDS = {
    "har-doctor": (),
    "har-shards bench data/videos --rounds 1": (),
    "har-bench-train --model convlstm --frames 4 --size 28 --batch-size 2 --steps 1 --rounds 1": (),
    f"har-train {TRAIN_TINY} --compile --tensorboard --out runs/compiled": ("runs/compiled/",),
    "har-reproduce data/videos --shards data/shards --preset paper --split grouped --seeds 1 "
    f"--model convlstm -- --epochs 1 --frames 4 --size 28 --model-options {TINY_OPTIONS}":
        ("runs/paper/", "reports/paper/"),
}  # fmt: skip
SLOW_SETTINGS = {"har-shards": {"har.pipeline.benchmark.build_bench.BUILD_CLIPS": 240}}

BENCH_LOADER = (
    "har-bench-loader data/shards --videos data/videos --rounds 1 --batch-size 4 --workers 1"
)


@needs_semaphores
def test_the_loader_bench_and_litdata_keep_to_their_scratch_folder(world: World) -> None:
    settings = {"har.pipeline.benchmark.loader_bench.MIN_SECONDS": 0}
    text = world.check(f"{BENCH_LOADER} --plot bars.png", ("bars.png",), settings=settings)
    assert "LitData  " in text or "not installed (litdata)" in text


@pytest.mark.parametrize("line", COMMANDS)
def test_it_writes_what_it_names_and_nothing_else(world: World, line: str) -> None:
    world.check(line, COMMANDS[line])


@pytest.mark.slow
@pytest.mark.parametrize("line", SLOW_COMMANDS)
def test_slow_ones_write_what_they_name_and_nothing_else(world: World, line: str) -> None:
    world.check(line, SLOW_COMMANDS[line], settings=SLOW_SETTINGS.get(line.split()[0]))


@pytest.mark.slow
def test_a_set_behind_a_url_is_cached_where_it_says(world: World) -> None:
    with serving(world.work / "data" / "shards") as server:
        line = f"har-train {TRAIN_TINY} --shards {server.url} --out runs/remote"
        world.check(line, ("runs/remote/", "../home/.cache/har/"))


@pytest.mark.slow
def test_the_page_keeps_no_upload(world: World) -> None:
    pytest.importorskip("gradio")
    with world.unchanged(), world.running("har-serve runs/convlstm --port 0") as url:
        client = Client(urllib.parse.urlsplit(url).port)
        assert "SwipeUp" in client.answer("a.avi", (world.work / VIDEO).read_bytes())[0]


@pytest.mark.parametrize(
    "line",
    [
        "har-shards build data/videos --out .",
        "har-shards build data/videos --out data/shards --frames 8",
        "har-shards build nowhere --out data/other",
        f"har-train {TINY_MODEL} --frames 4 --size 28 --out runs/convlstm",
        f"har-train {TINY_MODEL} --frames 9 --size 28 --out runs/other",
        "har-report runs/kept -o reports",
        "har-export runs/convlstm -o data",
    ],
)
def test_a_mistake_changes_nothing(world: World, line: str) -> None:
    world.check(line, exit_code=2)


def test_every_command_is_run_here() -> None:
    text = Path(__file__).read_text()
    for name in SCRIPTS:
        command = load_command(name)
        subcommands = command.commands if isinstance(command, click.Group) else [""]
        assert all(f"{name} {subcommand}".strip() in text for subcommand in subcommands), name
