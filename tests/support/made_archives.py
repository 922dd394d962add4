"""Archives of every kind that builds read, made by hand where no program here writes them."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

_RNG = np.random.default_rng(0)
FILES = {
    name: _RNG.integers(0, 256, size, np.uint8).tobytes()
    for name, size in (
        ("A/1.avi", 70_000),
        ("A/2.avi", 5_000),
        ("B/3 c.avi", 1),
        ("B/4.avi", 90_000),
    )
}
KINDS = (".zip", ".tar", ".tar.gz", ".tgz", ".rar")


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """An archive of the kind that its suffix says; `FILES` lie in one folder around them."""
    if files is FILES:
        files = {f"UCF-101/{name}": data for name, data in files.items()}
    if path.suffix == ".rar":
        path.write_bytes(rar_bytes(files))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                info = zipfile.ZipInfo("x")
                info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
                archive.writestr(info, data)
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def pack_tree(root: Path, path: Path, top: str = "") -> Path:
    """The archive of all files below `root`, whose names begin with `top`."""
    files = (file for file in sorted(root.rglob("*")) if file.is_file())
    return pack(path, {f"{top}{f.relative_to(root).as_posix()}": f.read_bytes() for f in files})


def rar_bytes(files: dict[str, bytes], method: int = 0x30, flags: int = 0) -> bytes:
    """A RAR 4 archive. method: 0x30 = stored, others are said and not done. flags: of the head."""
    blocks = [b"Rar!\x1a\x07\x00", _rar_block(0x73, flags, bytes(6))]
    for name, data in files.items():
        encoded = name.encode()
        head = struct.pack(
            "<IIBIIBBHI", len(data), len(data), 3, zlib.crc32(data), 0x5A21_0000, 29, method,
            len(encoded), 0o100644,
        )  # fmt: skip
        blocks += [_rar_block(0x74, 0x8000, head + encoded), data]
    return b"".join([*blocks, _rar_block(0x7B, 0x4000, b"")])


def _rar_block(kind: int, flags: int, body: bytes) -> bytes:
    rest = struct.pack("<BHH", kind, flags, len(body) + 7) + body
    return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest
