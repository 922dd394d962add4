"""MPEG-4 part 2: the pictures of a stream and their order, from 2 bits of each header.

UCF101 and HMDB51 are XviD/DivX in AVI, a container without presentation time stamps. What a picture
(VOP) refers to is fixed by its type: I nothing, P (and S) the picture of type I, P or S before it,
B the two before it; so the order of presentation is known too.

"Packed" streams (about 3,000 files of UCF101) put a P and the B behind it into one packet and a
stub, a picture that is "not coded", into a later one; such packets are split here. FFmpeg decodes
one picture a packet, so the B in the very last packet is lost, and is no frame here either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import av

_VOP, _GROUP = b"\0\0\1\xb6", b"\0\0\1\xb3"
_DIVX = b"DivX"  # without it in its user data, FFmpeg takes one picture a packet, as is done here
_FILLER = 8  # bytes; HMDB51 files hold packets of one byte without a picture
_STUB = 24  # bytes; a picture that is not coded is a header alone
I_VOP, P_VOP, B_VOP, S_VOP = range(4)


class CodedPicture(NamedTuple):
    """packet: its number, data: its bytes, or the part of them that holds this picture. is_start:
    whether a decoder may start at it."""

    packet: int
    data: bytes
    type: int
    is_start: bool


def split_pictures(packets: Sequence[bytes], extradata: bytes) -> list[CodedPicture] | None:
    """Each coded picture, in decode order; None where the stream is not plain.

    Pictures are those that a plain decode from the first packet gives out as frames. None: no
    stream header, or one that changes; a packet without a picture or with more than two; two packed
    pairs without a stub between.
    """
    pictures: list[CodedPicture] = []
    headers = extradata
    may_pack, time_bits = _DIVX in headers, _time_bits(headers)
    num_waiting = 0  # pictures of a packed pair that are not decoded yet: one a packet is
    for number, data in enumerate(packets):
        first, header = data.find(_VOP), b""
        if first > 0:
            header = data[:first].partition(_GROUP)[0]  # a group's header is but a time
            if not headers:
                headers = header
                may_pack, time_bits = _DIVX in headers, _time_bits(headers)
            if header not in headers:
                return None
        if first < 0 and len(data) <= _FILLER and num_waiting == 0:
            continue
        if first < 0 or not time_bits:
            return None
        second = data.find(_VOP, first + 4) if may_pack else -1
        if second >= 0 and data.find(_VOP, second + 4) >= 0:
            return None
        parts = [(data[:second] if second >= 0 else data, first + 4)]
        if second >= 0:
            parts.append((data[second:], 4))
        for part, body in parts:
            is_coded = len(part) - body > _STUB or _is_coded(part[body:], time_bits)
            if is_coded is None or (not is_coded and second >= 0):
                return None
            if is_coded:
                kind = part[body] >> 6
                has_headers = bool(extradata) or bool(header and part is parts[0][0])
                pictures.append(CodedPicture(number, part, kind, kind == I_VOP and has_headers))
                num_waiting += 1
        num_waiting = max(0, num_waiting - 1)
        if num_waiting > 1:
            return None
    return pictures[: len(pictures) - num_waiting]


def frame_indices(types: Sequence[int]) -> list[int] | None:
    """Types of pictures in decode order -> the index of each in presentation order.

    A B comes out at once, the others when the next of them comes. None where a picture lacks one
    that it refers to.
    """
    indices, next_index, num_references, waiting = [0] * len(types), 0, 0, -1
    for position, kind in enumerate(types):
        if kind == B_VOP:
            if num_references < 2:
                return None
            indices[position] = next_index
            next_index += 1
            continue
        if num_references == 0 and kind != I_VOP:
            return None
        if waiting >= 0:
            indices[waiting] = next_index
            next_index += 1
        waiting, num_references = position, num_references + 1
    if waiting < 0:
        return None
    indices[waiting] = next_index
    return indices


def make_packet(data: bytes) -> av.Packet:
    """Bytes -> packet, made by size and then filled: `Packet(bytes)` has no padding behind it, the
    decoder reads a little past the end, and frames came out wrong now and then."""
    packet = av.Packet(len(data))
    packet.update(data)
    return packet


def _is_coded(body: bytes, time_bits: int) -> bool | None:
    """vop_coded of the picture header `body` (ISO 14496-2, 6.2.5); None where it is cut off.

    Type (2 bits), seconds in unary (ones, then a zero), marker, time_bits of time, marker, the bit.
    """
    bits = _BitReader(body)
    try:
        bits.read(2)
        while bits.read(1):
            pass
        bits.read(time_bits + 2)
        return bool(bits.read(1))
    except IndexError:
        return None


class _BitReader:
    """Reads bits, the highest first; IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._num_left = int.from_bytes(data, "big"), len(data) * 8

    def read(self, count: int) -> int:
        if count > self._num_left:
            raise IndexError("end of header")
        self._num_left -= count
        return (self._value >> self._num_left) & ((1 << count) - 1)


def _time_bits(data: bytes) -> int:
    """Width of vop_time_increment, from the VOL header (ISO 14496-2, 6.2.3); 0 without one, and for
    shapes that are not rectangular."""
    for code in range(0x20, 0x30):
        start = data.find(bytes((0, 0, 1, code)))
        if start >= 0:
            break
    else:
        return 0
    bits = _BitReader(data[start + 4 : start + 64])
    try:
        bits.read(9)
        verid = bits.read(7) >> 3 if bits.read(1) else 1
        if bits.read(4) == 15:
            bits.read(16)
        if bits.read(1):
            bits.read(3)
            if bits.read(1):
                bits.read(79)
        shape = bits.read(2)
        if shape != 0 or verid > 5 or not bits.read(1):
            return 0
        return max(1, (bits.read(16) - 1).bit_length())
    except IndexError:
        return 0
