"""The compiled loops of `har.pipeline.decode.avi` and `har.pipeline.decode.mpeg4`: one pass each over a file's bytes.

Importing this imports numba (0.4 s): do it where it is used. In plain Python and numpy these loops
took 1.0 of 8.9 ms a video, here 0.15.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

FILLER = 8  # bytes; HMDB51 files hold packets of one byte without a picture
_I, _B = 0, 2
_HOW: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@numba.njit(**_HOW)
def _word(data: np.ndarray, at: int) -> int:
    """Four bytes, little-endian."""
    word = 0
    for place in range(3, -1, -1):
        word = word << 8 | data[at + place]
    return word


@numba.njit(**_HOW)
def chunks(
    data: np.ndarray,
    movi: tuple[int, int],
    index: tuple[int, int],
    video: tuple[int, int],
    others: np.ndarray,
    spans: np.ndarray,
) -> int:
    """Walk the chunks between `movi` and note those of the video in `spans`, int64 [n,2].

    movi, index: start and end. video: its two possible names, others: int64 names to pass over; a
    name is its four bytes, little-endian. -> how many; -1 where a chunk is unknown or leaves
    `movi`, or the index does not have exactly these (libavformat may go by it).
    """
    at, end = movi
    entry, count, first = index[0], 0, -1
    while at + 8 <= end:
        name, size = _word(data, at), _word(data, at + 4)
        at += 8
        if at + size > end or entry + 16 > index[1]:
            return -1
        if first < 0:
            first = at - _word(data, entry + 8)
        if (
            _word(data, entry) != name
            or _word(data, entry + 8) + first != at
            or _word(data, entry + 12) != size
        ):
            return -1
        entry += 16
        if name in video:
            spans[count, 0], spans[count, 1] = at, at + size
            count += 1
        else:
            known = False
            for other in others:
                known = known or name == other
            if not known:
                return -1
        at += size + (size & 1)
    return count if at in (end, end + 1) and entry == index[1] else -1


@numba.njit(**_HOW)
def _start(data: np.ndarray, at: int, end: int) -> int:
    """Where the next picture's start code 00 00 01 B6 begins, all of it before `end`; else -1."""
    last = end - 3
    while at < last:
        stop = min(at + 64, last)
        hits = np.uint8(0)
        for i in range(at, stop):  # 64 bytes at a time: a few instructions
            hits |= np.uint8(data[i + 2] == 1) & np.uint8(data[i + 3] == 0xB6)
        if hits:
            for i in range(at, stop):
                if data[i] == 0 and data[i + 1] == 0 and data[i + 2] == 1 and data[i + 3] == 0xB6:
                    return i
        at = stop
    return -1


@numba.njit(**_HOW)
def _has_divx(data: np.ndarray, at: int, end: int) -> bool:
    for i in range(at, end - 3):
        if data[i] == 68 and data[i + 1] == 105 and data[i + 2] == 118 and data[i + 3] == 88:
            return True
    return False


@numba.njit(**_HOW)
def _is_coded(data: np.ndarray, at: int, end: int, time_bits: int) -> int:
    """vop_coded of the header at `at` (ISO 14496-2, 6.2.5): 1, 0, or -1 where it is cut off.

    Type (2 bits), seconds in unary (ones, then a zero), marker, time_bits of time, marker, the bit.
    """
    bit = at * 8 + 2
    while bit < end * 8 and data[bit >> 3] >> (7 - (bit & 7)) & 1:
        bit += 1
    bit += time_bits + 3
    if bit >= end * 8:
        return -1
    return data[bit >> 3] >> (7 - (bit & 7)) & 1


@numba.njit(**_HOW)
def pictures(
    data: np.ndarray,
    packets: np.ndarray,
    time_bits: int,
    may_pack: bool,
    spans: np.ndarray,
    kinds: np.ndarray,
) -> int:
    """The coded pictures of `packets` (int64 [n,2], start and end in `data`) in decoding order.

    spans: int64 [2n,2] and kinds: int64 [2n] are filled. may_pack: whether the stream says DivX,
    as far as is known. -> how many, or -1: see `mpeg4.pictures`.
    """
    count = waiting = 0  # waiting: pictures of a packed pair not decoded yet: one a packet is
    for at, end in packets:
        first = _start(data, at, end)
        if first < 0 and end - at <= FILLER and waiting == 0:
            continue
        if first < 0:
            return -1
        may_pack = may_pack or _has_divx(data, at, first)
        second = _start(data, first + 4, end) if may_pack else -1
        if second >= 0 and _start(data, second + 4, end) >= 0:
            return -1
        stop = end if second < 0 else second
        for part in range(1 if second < 0 else 2):
            if part == 1:
                at, first, stop = second, second, end
            coded = _is_coded(data, first + 4, min(first + 16, stop), time_bits)
            if coded < 0 or (coded == 0 and second >= 0):
                return -1
            if coded:
                spans[count, 0], spans[count, 1] = at, stop  # headers in front stay with the first
                kinds[count] = data[first + 4] >> 6
                count += 1
                waiting += 1
        waiting = max(0, waiting - 1)
        if waiting > 1:
            return -1
    return count - waiting


@numba.njit(**_HOW)
def number(kinds: np.ndarray, numbers: np.ndarray) -> bool:
    """Give each picture its place in presentation: a B comes out at once, the others when the next
    of them comes. -> False where a picture lacks one that it refers to."""
    place = references = 0
    waiting = -1
    for at in range(len(kinds)):
        if kinds[at] == _B:
            if references < 2:
                return False
            numbers[at] = place
            place += 1
            continue
        if references == 0 and kinds[at] != _I:
            return False
        if waiting >= 0:
            numbers[waiting] = place
            place += 1
        waiting, references = at, references + 1
    if waiting < 0:
        return False
    numbers[waiting] = place
    return True


@numba.njit(**_HOW)
def needed(kinds: np.ndarray, numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which pictures the frames with `wanted[number]` need, bool [n], in decoding order."""
    keep = np.zeros(len(kinds), np.bool_)
    owed = 0  # how many more pictures that others refer to are asked for, going backwards
    for at in range(len(kinds) - 1, -1, -1):
        asked = wanted[numbers[at]]
        if kinds[at] == _B:
            keep[at] = asked
            owed = max(owed, 2) if asked else owed
            continue
        keep[at] = owed > 0 or asked
        if keep[at]:
            owed = max(owed - 1, 0 if kinds[at] == _I else 1)
    return keep
