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

import numpy as np

_VOP = b"\x00\x00\x01\xb6"
_DIVX = b"DivX"  # without this in its user data, FFmpeg takes one picture a packet, and so do we
I_VOP, P_VOP, B_VOP, S_VOP = range(4)


class Pictures(NamedTuple):
    """The coded pictures of a stream, in decoding order.

    data: the bytes they lie in. spans: int64 [n,2], start and end there. kinds: int64 [n], one of
    I_VOP to S_VOP. numbers: int64 [n], which frame each is, in presentation order.
    """

    data: bytes
    spans: np.ndarray
    kinds: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)


def pictures(data: bytes, packets: np.ndarray, extradata: bytes = b"") -> Pictures | None:
    """The coded pictures in `packets` (int64 [n,2], start and end in `data`), or None where the
    stream is not plainly MPEG-4.

    `numbers` counts frames as a plain decode from the first packet gives them out: a picture that
    is not coded gives no frame. None: no sequence header, a packet without a picture or with more
    than two, two packed pairs without a stub between, a first picture that is not I, a B without
    the two pictures it refers to.
    """
    from . import packet_kernel

    bits = _first_time_bits(data, packets, extradata)
    if bits is None:
        return None
    spans, kinds = np.empty((2 * len(packets), 2), np.int64), np.empty(2 * len(packets), np.int64)
    array = np.frombuffer(data, np.uint8)
    count = packet_kernel.pictures(array, packets, bits, _DIVX in extradata, spans, kinds)
    if count < 1:
        return None
    spans, kinds, numbers = spans[:count], kinds[:count], np.empty(count, np.int64)
    if not packet_kernel.number(kinds, numbers):
        return None
    return Pictures(data, spans, kinds, numbers)


def needed(stream: Pictures, numbers: Iterable[int]) -> np.ndarray:
    """The pictures that the frames `numbers` need: int64, places in `stream`, in decoding order."""
    from . import packet_kernel

    wanted = np.zeros(len(stream), np.bool_)
    wanted[list(numbers)] = True
    return np.flatnonzero(packet_kernel.needed(stream.kinds, stream.numbers, wanted))


def _first_time_bits(data: bytes, packets: np.ndarray, extradata: bytes) -> int | None:
    """From the stream's header: in the extradata, or in the first packet that is not a filler."""
    from .packet_kernel import FILLER

    bits = _time_bits(extradata)
    for at, end in packets:
        if bits is not None:
            break
        packet = data[at:end]
        bits = _time_bits(packet)
        if len(packet) > FILLER or _VOP in packet:
            break
    return bits


class _Bits:
    """Reads bits, the highest first; IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), len(data) * 8

    def take(self, count: int) -> int:
        if count > self._left:
            raise IndexError("end of header")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)


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
