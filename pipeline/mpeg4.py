"""MPEG-4 part 2 without decoding: which pictures a stream holds and which of them a frame needs.

UCF101 is XviD/DivX in AVI, and a clip needs few of its pictures. What a picture (VOP) refers to is
fixed by its type: I nothing, P (and S) the picture of type I, P or S before it, B the two before
it. So what a set of frames needs is known from 2 bits of each header, and leaving out the rest is
exact, not a guess.

Odd: "packed" streams (3,000 or so files of UCF101) put a P and the B behind it into one packet
and a stub, a picture that is "not coded", into a later one; we split such packets. FFmpeg decodes
one picture a packet, so the B in the very last packet is lost, and is no frame here either.
Whatever is not plainly this (`pictures` gives None) is to be decoded whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_VOP = b"\x00\x00\x01\xb6"
_DIVX = b"DivX"  # without this in its user data, FFmpeg takes one picture a packet, and so do we;
# looking for a second one in every packet takes 0.6 ms a video
_I, _P, _B, _S = range(4)
_FILLER = 8  # bytes; HMDB51 files hold packets of one byte without a picture


class Picture(NamedTuple):
    """One coded picture: its bytes, its type (0 I, 1 P, 2 B, 3 S), its place in presentation."""

    data: bytes
    kind: int
    number: int


def pictures(extradata: bytes, packets: Iterable[bytes]) -> list[Picture] | None:
    """The coded pictures in decoding order, or None where the stream is not plainly MPEG-4.

    `number` counts frames as a plain decode from the first packet gives them out: a picture that is
    not coded gives no frame. None: no sequence header, a packet without a picture or with more than
    two, two packed pairs without a stub between, a first picture that is not I, a
    B without the two pictures it refers to.
    """
    bits = _time_bits(extradata)
    may_pack = _DIVX in extradata
    coded: list[tuple[bytes, int]] = []
    waiting = 0  # pictures of a packed pair that are not decoded yet: one a packet is
    for packet in packets:
        if bits is None:
            bits = _time_bits(packet)
        first = packet.find(_VOP)
        if first < 0 and len(packet) <= _FILLER and not waiting:
            continue
        may_pack = may_pack or _DIVX in packet[: max(first, 0)]
        second = packet.find(_VOP, first + 4) if may_pack else -1
        if bits is None or first < 0 or (second >= 0 and packet.find(_VOP, second + 4) >= 0):
            return None
        # headers in front of the pictures stay with the first
        parts = (
            [(packet, first)] if second < 0 else [(packet[:second], first), (packet[second:], 0)]
        )
        for data, at in parts:
            header = data[at + 4 : at + 16]
            is_coded = _is_coded(header, bits)
            if is_coded is None or (not is_coded and second >= 0):
                return None
            if is_coded:
                coded.append((data, header[0] >> 6))
                waiting += 1
        waiting = max(0, waiting - 1)
        if waiting > 1:
            return None
    return _numbered(coded[: len(coded) - waiting])


def needed(stream: list[Picture], numbers: Iterable[int]) -> list[Picture]:
    """The pictures, in decoding order, that the frames `numbers` (presentation order) need."""
    wanted = set(numbers)
    keep = [False] * len(stream)
    owed = 0  # how many more pictures that others refer to are asked for, going backwards
    for at in range(len(stream) - 1, -1, -1):
        picture = stream[at]
        if picture.kind == _B:
            keep[at] = picture.number in wanted
            owed = max(owed, 2) if keep[at] else owed
            continue
        keep[at] = owed > 0 or picture.number in wanted
        if keep[at]:
            owed = max(owed - 1, 0 if picture.kind == _I else 1)
    return [picture for picture, kept in zip(stream, keep, strict=True) if kept]


def _numbered(coded: list[tuple[bytes, int]]) -> list[Picture] | None:
    """Give each its place: a B comes out at once, the others when the next of them comes."""
    order: list[int] = []
    waiting, references = None, 0
    for at, (_, kind) in enumerate(coded):
        if kind == _B:
            if references < 2:
                return None
            order.append(at)
            continue
        if not references and kind != _I:
            return None
        if waiting is not None:
            order.append(waiting)
        waiting, references = at, references + 1
    if waiting is None:
        return None
    order.append(waiting)
    number = {at: place for place, at in enumerate(order)}
    return [Picture(data, kind, number[at]) for at, (data, kind) in enumerate(coded)]


class _Bits:
    """Reads bits, the highest first; IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), len(data) * 8

    def take(self, count: int) -> int:
        if count > self._left:
            raise IndexError("end of header")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)


def _is_coded(header: bytes, time_bits: int) -> bool | None:
    """vop_coded of a picture header (ISO 14496-2, 6.2.5); None where it is cut off.

    Type (2 bits), seconds in unary (ones, then a zero), marker, time_bits of time, marker, the bit.
    Written without `_Bits`: called for every picture, it took 0.9 ms a video that way.
    """
    value, at = int.from_bytes(header, "big"), len(header) * 8 - 3
    while at > 0 and (value >> at) & 1:
        at -= 1
    at -= time_bits + 3
    return bool((value >> at) & 1) if at >= 0 else None


def _time_bits(data: bytes) -> int | None:
    """Width of vop_time_increment, from the VOL header (ISO 14496-2, 6.2.3); None without one.

    None as well for what this short reader does not know: other shapes than rectangular.
    """
    for code in range(0x20, 0x30):
        at = data.find(bytes((0, 0, 1, code)))
        if at >= 0:
            break
    else:
        return None
    bits = _Bits(data[at + 4 : at + 64])
    try:
        bits.take(9)
        verid = bits.take(7) >> 3 if bits.take(1) else 1
        if bits.take(4) == 15:
            bits.take(16)
        if bits.take(1):
            bits.take(3)
            if bits.take(1):
                bits.take(79)
        shape = bits.take(2)
        if shape != 0 or verid > 5 or not bits.take(1):
            return None
        return max(1, (bits.take(16) - 1).bit_length())
    except IndexError:
        return None
