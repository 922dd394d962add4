"""What the headers of a packet say of its picture, codec by codec.

Notes:
- H.264: only IDR pictures count as a start. A container also marks recovery points of open groups
  and of intra refresh as key packets; decoding from there may begin with other pixels.
- VP8 and VP9 have packets that show nothing (alternate reference frames); they are no frames.
- HEVC with temporal layers: a picture that its own layer does not refer to may be referred to by
  a higher one, so none is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import av

INTRA_ONLY = {"prores", "dnxhd", "huffyuv", "rawvideo", "dvvideo", "png"}
_KEY_STARTS = {  # a packet marked as key is a start, and one packet is one frame
    "vp8", "vp9", "av1", "h263", "flv1", "wmv1", "wmv2", "msmpeg4v2", "msmpeg4v3", "theora", "ffv1",
}  # fmt: skip
_MPEG_PICTURE, _MPEG_SEQUENCE, _MPEG_GROUP = b"\0\0\1\0", b"\0\0\1\xb3", b"\0\0\1\xb8"
_MPEG_I, _MPEG_B = 1, 3
_JPEG_QUANTIZATION, _JPEG_HUFFMAN, _JPEG_SCAN = b"\xff\xdb", b"\xff\xc4", b"\xff\xda"
_H264_IDR, _H264_SLICES, _H264_HEADERS = 5, (1, 5), (7, 8)
_HEVC_IRAP, _HEVC_SLICES, _HEVC_HEADERS = range(16, 22), range(32), (32, 33, 34)
_HEVC_LAST_NONREF = 14  # of the types below, the even ones are not referred to in their layer


class Picture(NamedTuple):
    """What the headers of a packet say. is_start: whether a decoder may start at it. is_reference:
    whether other pictures may refer to its picture; if not, it can be left out. layer: in time, 0
    is the lowest."""

    is_start: bool
    is_reference: bool = True
    layer: int = 0


def shows_frame(packet: av.Packet, codec: str) -> bool:
    """Whether a packet gives a frame out."""
    if codec not in ("vp8", "vp9"):
        return True
    data = memoryview(packet)
    if codec == "vp8":
        return bool(data[0] >> 4 & 1)
    is_superframe, is_profile_3 = data[-1] & 0xE0 == 0xC0, data[0] & 0x30 == 0x30
    return is_superframe or is_profile_3 or bool(data[0] & 8 or data[0] & 2)  # 8: one shown again


def read_pictures(
    packets: Sequence[av.Packet], codec: str, extradata: bytes
) -> list[Picture] | None:
    """What each packet's headers say; None where they are not those of a stream that is known."""
    if codec in INTRA_ONLY:
        return [Picture(is_start=True)] * len(packets)
    if codec in _KEY_STARTS:
        return [Picture(packet.is_keyframe) for packet in packets]
    if codec == "mjpeg":
        tables = {_jpeg_tables(bytes(packet)) for packet in packets}
        has_tables = len(tables) == 1 and all(has_quantization for has_quantization, _ in tables)
        return [Picture(is_start=True)] * len(packets) if has_tables else None
    read: Callable[[bytes, bytes], Picture | None]
    if codec in ("mpeg1video", "mpeg2video"):
        read = _read_mpeg
        if len({_mpeg_headers(bytes(packet)) for packet in packets} - {b""}) != 1:
            return None  # where the size changes, a plain decode loses a frame
    elif codec in ("h264", "hevc"):
        read = _read_h264 if codec == "h264" else _read_hevc
    else:
        return None
    pictures = []
    for packet in packets:
        picture = read(bytes(packet), extradata)
        if picture is None:
            return None
        pictures.append(picture)
    if any(picture.layer for picture in pictures):
        return [Picture(picture.is_start) for picture in pictures]
    return pictures


def _jpeg_tables(data: bytes) -> tuple[bool, bool]:
    """Whether a JPEG has tables of its own, for quantization and for Huffman codes."""
    header = data[: data.find(_JPEG_SCAN)]
    return _JPEG_QUANTIZATION in header, _JPEG_HUFFMAN in header


def _read_mpeg(data: bytes, extradata: bytes) -> Picture | None:
    """MPEG-1/2: a start has a sequence header."""
    at = data.find(_MPEG_PICTURE)
    if not 0 <= at < len(data) - 5:
        return None
    kind = data[at + 5] >> 3 & 7  # ISO 13818-2, 6.2.3: after 10 bits
    return Picture(kind == _MPEG_I and _MPEG_SEQUENCE in data[:at], kind != _MPEG_B)


def _mpeg_headers(data: bytes) -> bytes:
    """The sequence header of a packet, with its extensions; b"" where it has none."""
    start = data.find(_MPEG_SEQUENCE)
    header = data[start : data.find(_MPEG_PICTURE)].partition(_MPEG_GROUP)[0]
    return header if start >= 0 else b""


def _read_h264(data: bytes, extradata: bytes) -> Picture | None:
    for start, end in _units(data, extradata, 4):
        kind = data[start] & 31
        if kind in _H264_SLICES:
            return Picture(kind == _H264_IDR, bool(data[start] & 0x60))
        if kind in _H264_HEADERS and data[start:end].rstrip(b"\0") not in extradata:
            return None
    return None


def _read_hevc(data: bytes, extradata: bytes) -> Picture | None:
    for start, end in _units(data, extradata, 21):
        kind = data[start] >> 1 & 63
        if kind in _HEVC_SLICES:
            is_reference = kind > _HEVC_LAST_NONREF or bool(kind & 1)
            return Picture(kind in _HEVC_IRAP, is_reference, (data[start + 1] & 7) - 1)
        if kind in _HEVC_HEADERS and data[start:end].rstrip(b"\0") not in extradata:
            return None
    return None


def _units(data: bytes, extradata: bytes, length_at: int) -> Iterator[tuple[int, int]]:
    """Start and end of the NAL units of a packet: behind lengths (mp4, mkv), whose size stands at
    `length_at` of the extradata, or between start codes (ts)."""
    if extradata[:1] == b"\1":
        size, at = (extradata[length_at] & 3) + 1, 0
        while at + size + 1 < len(data):
            end = at + size + int.from_bytes(data[at : at + size], "big")
            yield at + size, end
            at = end
        return
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 4:
        end = data.find(b"\0\0\1", at + 3)
        yield at + 3, end if end >= 0 else len(data)
        at = end
