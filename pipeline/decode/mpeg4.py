"""MPEG-4 part 2: the pictures of a stream and their order, from 2 bits of each header.

UCF101 and HMDB51 are XviD/DivX in AVI, a container without presentation time stamps. What a picture
(VOP) refers to is fixed by its type: I nothing, P (and S) the picture of type I, P or S before it,
B the two before it; so the order of presentation is known too.

"Packed" streams (about 3,000 files of UCF101) put a P and the B behind it into one packet and a
stub, a picture that is "not coded", into a later one; such packets are split here. FFmpeg decodes
one picture a packet, so the B in the very last packet is lost, and is no frame here either.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from .avi import words
from .headers import BitReader

_VOP, _GROUP = b"\0\0\1\xb6", b"\0\0\1\xb3"
_VOP_WORD, _WORD_32 = np.uint64(int.from_bytes(_VOP, "little")), np.uint64(0xFFFFFFFF)
_DIVX = b"DivX"  # without it in its user data, FFmpeg takes one picture a packet, as is done here
_FILLER = 8  # bytes; HMDB51 files hold packets of one byte without a picture
_STUB = 24  # bytes; a picture that is not coded is a header alone
_MAX_FILLERS = 4  # before the first picture
I_VOP, P_VOP, B_VOP, S_VOP = range(4)


class CodedPictures(NamedTuple):
    """The coded pictures of a stream in decode order; int64 [n] each.

    packets: number of the packet. starts, ends: of its bytes, or of the part that holds this
    picture. types: of the pictures. is_start: 1 where a decoder may start.
    """

    packets: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    types: np.ndarray
    is_start: np.ndarray


def find_pictures(data: bytes, spans: np.ndarray, extradata: bytes) -> CodedPictures | None:
    """The pictures in the packets of `data`, whose start and end are `spans`, int64 [n,2].

    They are those that a plain decode from the first packet gives out as frames. None where the
    stream is not plain: no stream header, or one that changes; a packet without a picture or with
    more than two; two packed pairs without a stub between.
    """
    headers = extradata or _first_headers(data, spans)
    time_bits, may_pack = _time_bits(headers), _DIVX in headers
    if not time_bits or len(data) < 8:
        return None
    first_words = words(data)[np.minimum(spans[:, 0], len(data) - 8)]
    is_plain = first_words & _WORD_32 == _VOP_WORD
    is_plain &= spans[:, 1] - spans[:, 0] > _STUB + 4  # a picture, and it is coded
    if may_pack:
        is_plain &= _count_pictures(data, spans) == 1
    kinds = (first_words >> np.uint64(38)).astype(np.int64) & 3
    is_start = (kinds == I_VOP) & bool(extradata)
    others: list[tuple[int, int, int, int, bool]] = []
    usual = headers + _VOP  # how a key picture begins
    num_waiting = 0  # pictures of a packed pair that are not decoded yet: one a packet is
    numbers = np.flatnonzero(~is_plain)
    for number, (start, end) in zip(numbers.tolist(), spans[numbers].tolist(), strict=True):
        body = start + len(usual)
        if data.startswith(usual, start) and not may_pack and end - body > _STUB:
            kinds[number] = data[body] >> 6
            is_plain[number], is_start[number] = True, data[body] >> 6 == I_VOP
            continue
        packet = data[start:end]
        first = packet.find(_VOP)
        if first < 0 and len(packet) <= _FILLER and num_waiting == 0:
            continue
        header = packet[: max(0, first)].partition(_GROUP)[0]  # a group's header is but a time
        second = packet.find(_VOP, first + 4) if may_pack else -1
        is_odd = second >= 0 and packet.find(_VOP, second + 4) >= 0
        if first < 0 or is_odd or header not in headers:
            return None
        parts = [(0, first, len(packet))]
        if second >= 0:
            parts = [(0, first, second), (second, second, len(packet))]
        for part, picture, stop in parts:
            header_bits = packet[picture + 4 : stop]
            is_coded = len(header_bits) > _STUB or _is_coded(header_bits, time_bits)
            if is_coded is None or (not is_coded and second >= 0):
                return None
            if is_coded:
                kind = header_bits[0] >> 6
                has_headers = bool(extradata or (header and part == 0))
                is_first = kind == I_VOP and has_headers
                others.append((number, start + part, start + stop, kind, is_first))
                num_waiting += 1
        num_waiting = max(0, num_waiting - 1)
        if num_waiting > 1:
            return None
    columns = [np.arange(len(spans)), spans[:, 0], spans[:, 1], kinds, is_start]
    if is_plain.all():
        return CodedPictures(*columns)
    plain = np.column_stack([column[is_plain] for column in columns])
    table = np.concatenate([plain, np.array(others, np.int64).reshape(-1, 5)])
    table = table[np.argsort(table[:, 1], kind="stable")][: len(table) - num_waiting]
    return CodedPictures(*table.T)


def frame_indices(types: np.ndarray) -> np.ndarray | None:
    """Types of pictures in decode order, int64 [n] -> the index of each in presentation order.

    A B comes out at once, the others when the next of them comes. None where a picture lacks one
    that it refers to.
    """
    references = np.flatnonzero(types != B_VOP)
    if len(references) == len(types) and types[:1] == I_VOP:
        return np.arange(len(types))
    second = references[1] if len(references) > 1 else len(types)
    if not len(references) or types[0] != I_VOP or (types[:second] == B_VOP).any():
        return None
    indices = np.arange(len(types)) - 1  # of a B: the reference before it is shown later
    indices[references] = np.append(references[1:], len(types)) - 1
    return indices


def _count_pictures(data: bytes, spans: np.ndarray) -> np.ndarray:
    """int64 [n]: how many pictures begin in each packet."""
    found, at = [], data.find(_VOP)
    while at >= 0:
        found.append(at)
        at = data.find(_VOP, at + 4)
    places = np.array(found, np.int64)
    packets = np.searchsorted(spans[:, 0], places, "right") - 1
    is_within = (packets >= 0) & (places + 4 <= spans[packets, 1])
    return np.bincount(packets[is_within], minlength=len(spans))


def _first_headers(data: bytes, spans: np.ndarray) -> bytes:
    """What stands before the first picture: the headers of the stream; b"" where nothing does."""
    for start, end in spans[:_MAX_FILLERS].tolist():
        first = data.find(_VOP, start, end)
        if first >= 0:
            return data[start:first].partition(_GROUP)[0]
    return b""


def _is_coded(body: bytes, time_bits: int) -> bool | None:
    """vop_coded of the picture header `body` (ISO 14496-2, 6.2.5); None where it is cut off.

    Type (2 bits), seconds in unary (ones, then a zero), marker, time_bits of time, marker, the bit.
    """
    bits = BitReader(body)
    try:
        bits.read(2)
        while bits.read(1):
            pass
        bits.read(time_bits + 2)
        return bool(bits.read(1))
    except IndexError:
        return None


@functools.lru_cache(maxsize=64)  # a set's files have few headers
def _time_bits(data: bytes) -> int:
    """Width of vop_time_increment, from the VOL header (ISO 14496-2, 6.2.3); 0 without one, and for
    shapes that are not rectangular."""
    for code in range(0x20, 0x30):
        start = data.find(bytes((0, 0, 1, code)))
        if start >= 0:
            break
    else:
        return 0
    bits = BitReader(data[start + 4 : start + 64])
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
