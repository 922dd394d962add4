"""What the headers of a packet say of its picture, codec by codec.

Notes:
- H.264: only IDR pictures count as a start. A container also marks recovery points of open groups
  and of intra refresh as key packets; decoding from there may begin with other pixels.
- VP8 and VP9 have packets that show nothing (alternate reference frames); they are no frames.
- HEVC with temporal layers: a picture that its own layer does not refer to may be referred to by
  a higher one, so none is left out.
- AV1: a packet is left out if it replaces none of the eight pictures that a decoder keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import av

INTRA_ONLY = {"prores", "dnxhd", "huffyuv", "rawvideo", "dvvideo", "png"}
_KEY_STARTS = {  # a packet marked as key is a start, and one packet is one frame
    "vp8", "vp9", "h263", "flv1", "wmv1", "wmv2", "msmpeg4v2", "msmpeg4v3", "theora", "ffv1",
}  # fmt: skip
_MPEG_PICTURE, _MPEG_SEQUENCE, _MPEG_GROUP = b"\0\0\1\0", b"\0\0\1\xb3", b"\0\0\1\xb8"
_MPEG_I, _MPEG_B = 1, 3
_JPEG_QUANTIZATION, _JPEG_HUFFMAN, _JPEG_SCAN = b"\xff\xdb", b"\xff\xc4", b"\xff\xda"
_H264_IDR, _H264_SLICES, _H264_HEADERS = 5, (1, 5), (7, 8)
_HEVC_IRAP, _HEVC_SLICES, _HEVC_HEADERS = range(16, 22), range(32), (32, 33, 34)
_HEVC_LAST_NONREF = 14  # of the types below, the even ones are not referred to in their layer
_AV1_SEQUENCE, _AV1_HEADERS = 1, (3, 6)  # types of units: 3 is a picture's header, 6 with its data
_AV1_KEY, _AV1_INTRA, _AV1_SWITCH = 0, 2, 3  # types of pictures
_AV1_CONFIG_BYTES = 4  # before the units of the extradata


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
    if codec == "av1":
        return _read_av1(packets, extradata)
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


class BitReader:
    """Reads bits, the highest first; IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._num_left = int.from_bytes(data, "big"), len(data) * 8

    def read(self, count: int) -> int:
        """The next `count` bits, as a number."""
        if count > self._num_left:
            raise IndexError("end of header")
        self._num_left -= count
        return (self._value >> self._num_left) & ((1 << count) - 1)


class _Av1Sequence(NamedTuple):
    """What of a sequence header a picture's header must be read by; 2: each picture says it."""

    screen_content: int
    integer_motion: int
    order_bits: int


def _read_av1(packets: Sequence[av.Packet], extradata: bytes) -> list[Picture]:
    """AV1: a packet is one frame; it has hidden pictures before it."""
    sequence, pictures = None, []
    for data, is_start in [
        (extradata[_AV1_CONFIG_BYTES:], True),
        *((bytes(packet), packet.is_keyframe) for packet in packets),
    ]:
        is_reference = False
        try:
            for kind, header in _av1_units(data):
                if kind == _AV1_SEQUENCE:
                    sequence = _av1_sequence(header)
                elif kind in _AV1_HEADERS and not is_reference:
                    is_reference = sequence is None or _av1_is_reference(header, sequence)
        except IndexError:
            is_reference = True
        pictures.append(Picture(is_start, is_start or is_reference))
    return pictures[1:]


def _av1_units(data: bytes) -> Iterator[tuple[int, BitReader]]:
    """Type and content of the units of a packet (AV1 specification, 5.3). Raises IndexError for a
    unit that belongs to a layer or does not say its size."""
    at = 0
    while at < len(data):
        head, at = data[at], at + 1
        if head & 6 != 2:
            raise IndexError("no size, or a layer")
        size = shift = 0
        while data[at] & 128:
            size |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
        size |= data[at] << shift
        at += 1
        yield head >> 3 & 15, BitReader(data[at : at + min(size, 64)])
        at += size


def _av1_sequence(bits: BitReader) -> _Av1Sequence | None:
    """Of a sequence header (5.5); None for streams of several layers, with a model of the decoder's
    time or with numbered frames, which encoders do not write unless they are told to."""
    read = bits.read
    read(4)
    if read(2):  # a single picture, or times
        return None
    has_delay = read(1)
    if read(5 + 12):  # layers
        return None
    if read(5) > 7:
        read(1)
    if has_delay and read(1):
        read(4)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    read(width_bits + height_bits)
    if read(1):  # numbered frames
        return None
    read(3 + 4)
    has_order = read(1)
    if has_order:
        read(2)
    screen_content = 2 if read(1) else read(1)
    integer_motion = 2
    if screen_content and not read(1):
        integer_motion = read(1)
    return _Av1Sequence(screen_content, integer_motion, read(3) + 1 if has_order else 0)


def _av1_is_reference(bits: BitReader, sequence: _Av1Sequence) -> bool:
    """By a picture's header (5.9.2): whether it changes what the decoder keeps."""
    read = bits.read
    if read(1):  # shows a picture that the decoder has; a key picture then replaces all
        return True
    kind, is_shown = read(2), read(1)
    if kind == _AV1_SWITCH or (kind == _AV1_KEY and is_shown):
        return True
    if not is_shown:
        read(1)
    is_robust = read(1)
    read(1)
    has_screen_content = read(1) if sequence.screen_content == 2 else sequence.screen_content
    if has_screen_content and sequence.integer_motion == 2:
        read(1)
    read(1 + sequence.order_bits)
    if kind not in (_AV1_KEY, _AV1_INTRA) and not is_robust:
        read(3)
    return read(8) > 0
