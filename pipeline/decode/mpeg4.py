"""MPEG-4 part 2 without decoding: which pictures a stream holds and which of them a frame needs.

UCF101 is XviD/DivX in AVI, and a clip needs few of its pictures. What a picture (VOP) refers to is
fixed by its type: I nothing, P (and S) the picture of type I, P or S before it, B the two before
it. So what a set of frames needs is known from 2 bits of each header, and leaving out the rest is
exact.

"Packed" streams (about 3,000 files of UCF101) put a P and the B behind it into one packet and a
stub, a picture that is "not coded", into a later one; such packets are split here. FFmpeg decodes
one picture a packet, so the B in the very last packet is lost, and is no frame here either. A
stream that is not plainly of this form gives None and is decoded as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from . import packet_kernel

_VOP = b"\x00\x00\x01\xb6"
_DIVX = b"DivX"  # without it in its user data, FFmpeg takes one picture a packet, as is done here
I_VOP, P_VOP, B_VOP, S_VOP = range(4)


class Pictures(NamedTuple):
    """The coded pictures of a stream, in decoding order.

    data: the bytes they lie in. spans: int64 [n,2], start and end there. pict_types: int64 [n], one
    of I_VOP to S_VOP. frame_indices: int64 [n], which frame each is, in presentation order.
    """

    data: bytes
    spans: np.ndarray
    pict_types: np.ndarray
    frame_indices: np.ndarray

    def __len__(self) -> int:
        return len(self.pict_types)


def parse_pictures(data: bytes, packets: np.ndarray, extradata: bytes = b"") -> Pictures | None:
    """The coded pictures in `packets` (int64 [n,2], start and end in `data`), or None where the
    stream is not plainly MPEG-4.

    Frames are counted as a plain decode from the first packet gives them out: a picture that is not
    coded gives no frame. None: no sequence header, a packet without a picture or with more than
    two, two packed pairs without a stub between, a first picture that is not I, a B without the two
    pictures it refers to.
    """
    time_bits = _stream_time_bits(data, packets, extradata)
    if time_bits is None:
        return None
    spans = np.empty((2 * len(packets), 2), np.int64)
    pict_types = np.empty(2 * len(packets), np.int64)
    count = packet_kernel.find_pictures(
        np.frombuffer(data, np.uint8), packets, time_bits, _DIVX in extradata, spans, pict_types
    )
    if count < 1:
        return None
    spans, pict_types = spans[:count], pict_types[:count]
    frame_indices = np.empty(count, np.int64)
    if not packet_kernel.number_frames(pict_types, frame_indices):
        return None
    return Pictures(data, spans, pict_types, frame_indices)


def needed_pictures(pictures: Pictures, frame_indices: Iterable[int]) -> np.ndarray:
    """The pictures that those frames need: int64, positions in decoding order."""
    is_chosen = np.zeros(len(pictures), np.bool_)
    is_chosen[list(frame_indices)] = True
    needed = packet_kernel.mark_needed(pictures.pict_types, pictures.frame_indices, is_chosen)
    return np.flatnonzero(needed)


def _stream_time_bits(data: bytes, packets: np.ndarray, extradata: bytes) -> int | None:
    """From the stream's header: in the extradata, or in the first packet that is not a filler."""
    time_bits = _time_bits(extradata)
    for start, end in packets:
        if time_bits is not None:
            break
        packet = data[start:end]
        time_bits = _time_bits(packet)
        if len(packet) > packet_kernel.FILLER or _VOP in packet:
            break
    return time_bits


class _BitReader:
    """Reads bits, the highest first; IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._num_left = int.from_bytes(data, "big"), len(data) * 8

    def read(self, count: int) -> int:
        if count > self._num_left:
            raise IndexError("end of header")
        self._num_left -= count
        return (self._value >> self._num_left) & ((1 << count) - 1)


def _time_bits(data: bytes) -> int | None:
    """Width of vop_time_increment, from the VOL header (ISO 14496-2, 6.2.3); None without one, and
    for shapes that are not rectangular."""
    for code in range(0x20, 0x30):
        start = data.find(bytes((0, 0, 1, code)))
        if start >= 0:
            break
    else:
        return None
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
            return None
        return max(1, (bits.read(16) - 1).bit_length())
    except IndexError:
        return None
