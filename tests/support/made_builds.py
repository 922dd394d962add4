"""Small builds: their options, the bytes of what they make, and decoders with a fault built in."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from kept_decoders import use_new_decoders

from har.pipeline.build import BuildOptions, RunOptions, build_shard_set
from har.pipeline.sampling import ClipSampler
from har.shards.format import Manifest
from har.shards.storage import RemoteFolder

SIZE = (24, 32)
OPTIONS = BuildOptions(ClipSampler(frames=4), SIZE)
QUIET = RunOptions(workers=1, quiet=True)


def build(
    videos: Path | str, out: Path | str, options: BuildOptions = OPTIONS, **changes: Any
) -> Manifest:
    return build_shard_set(videos, out, **{"options": options, "run_options": QUIET, **changes})


def tree_bytes(root: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def upload(root: Path, url: str) -> RemoteFolder:
    """Copy the files below `root`; -> the folder behind the URL."""
    folder = RemoteFolder(url)
    for name, data in tree_bytes(root).items():
        folder.write(name, data)
    return folder


def url_bytes(url: str) -> dict[str, bytes]:
    folder = RemoteFolder(url)
    return {name: folder.read(name) for name in folder.find()}


def build_command(videos: Path | str, out: Path | str, *options: str) -> list[str]:
    program = "from har.pipeline.cli import shards_main; shards_main()"
    return [
        sys.executable, "-c", program, "build", str(videos), "--out", str(out),
        "--frames", "4", "--size", "24x32", *options,
    ]  # fmt: skip


def hook_decoder(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Every decoder process runs `lines` before each video, which is in `path`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, resource, time, har.pipeline.decode.clips as module\n"
        "plain = module.decode_clips\n"
        "def decode_clips(path, *args, **options):\n"
        f"{textwrap.indent(lines, '    ')}\n"
        "    return plain(path, *args, **options)\n"
        "module.decode_clips = decode_clips\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
    use_new_decoders(monkeypatch)
