"""The compiled loops of `avi` and `mpeg4`: one pass each over a file's bytes.

In plain Python and numpy these loops took 1.0 of 8.9 ms a video, here 0.15.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

FILLER = 8  # bytes; HMDB51 files hold packets of one byte without a picture
_I, _B = 0, 2
_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@numba.njit(**_OPTIONS)
def _uint32(data: np.ndarray, offset: int) -> int:
    """Four bytes, little-endian."""
    value = 0
    for i in range(3, -1, -1):
        value = value << 8 | data[offset + i]
    return value


@numba.njit(**_OPTIONS)
def find_chunks(
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
    offset, end = movi
    entry, count, base = index[0], 0, -1
    while offset + 8 <= end:
        name, size = _uint32(data, offset), _uint32(data, offset + 4)
        offset += 8
        if offset + size > end or entry + 16 > index[1]:
            return -1
        if base < 0:
            base = offset - _uint32(data, entry + 8)
        if (
            _uint32(data, entry) != name
            or _uint32(data, entry + 8) + base != offset
            or _uint32(data, entry + 12) != size
        ):
            return -1
        entry += 16
        if name in video:
            spans[count, 0], spans[count, 1] = offset, offset + size
            count += 1
        else:
            is_known = False
            for other in others:
                is_known = is_known or name == other
            if not is_known:
                return -1
        offset += size + (size & 1)
    return count if offset in (end, end + 1) and entry == index[1] else -1


@numba.njit(**_OPTIONS)
def _find_start_code(data: np.ndarray, offset: int, end: int) -> int:
    """Where the next picture's start code 00 00 01 B6 begins, all of it before `end`; else -1."""
    last = end - 3
    while offset < last:
        stop = min(offset + 64, last)
        hits = np.uint8(0)
        for i in range(offset, stop):  # 64 bytes at a time: a few instructions
            hits |= np.uint8(data[i + 2] == 1) & np.uint8(data[i + 3] == 0xB6)
        if hits:
            for i in range(offset, stop):
                if data[i] == 0 and data[i + 1] == 0 and data[i + 2] == 1 and data[i + 3] == 0xB6:
                    return i
        offset = stop
    return -1


@numba.njit(**_OPTIONS)
def _has_divx(data: np.ndarray, start: int, end: int) -> bool:
    for i in range(start, end - 3):
        if data[i] == 68 and data[i + 1] == 105 and data[i + 2] == 118 and data[i + 3] == 88:
            return True
    return False


@numba.njit(**_OPTIONS)
def _is_coded(data: np.ndarray, offset: int, end: int, time_bits: int) -> int:
    """vop_coded of the header at `offset` (ISO 14496-2, 6.2.5): 1, 0, or -1 where it is cut off.

    Type (2 bits), seconds in unary (ones, then a zero), marker, time_bits of time, marker, the bit.
    """
    bit = offset * 8 + 2
    while bit < end * 8 and data[bit >> 3] >> (7 - (bit & 7)) & 1:
        bit += 1
    bit += time_bits + 3
    if bit >= end * 8:
        return -1
    return data[bit >> 3] >> (7 - (bit & 7)) & 1


@numba.njit(**_OPTIONS)
def find_pictures(
    data: np.ndarray,
    packets: np.ndarray,
    time_bits: int,
    may_pack: bool,
    spans: np.ndarray,
    pict_types: np.ndarray,
) -> int:
    """The coded pictures of `packets` (int64 [n,2], start and end in `data`) in decoding order.

    spans: int64 [2n,2] and pict_types: int64 [2n] are filled. may_pack: whether the stream is known
    to say DivX. -> how many, or -1: see `mpeg4.parse_pictures`.
    """
    count = num_waiting = 0  # waiting: pictures of a packed pair not decoded yet: one a packet is
    for start, end in packets:
        first = _find_start_code(data, start, end)
        if first < 0 and end - start <= FILLER and num_waiting == 0:
            continue
        if first < 0:
            return -1
        may_pack = may_pack or _has_divx(data, start, first)
        second = _find_start_code(data, first + 4, end) if may_pack else -1
        if second >= 0 and _find_start_code(data, second + 4, end) >= 0:
            return -1
        stop = end if second < 0 else second
        for part in range(1 if second < 0 else 2):
            if part == 1:
                start, first, stop = second, second, end
            is_coded = _is_coded(data, first + 4, min(first + 16, stop), time_bits)
            if is_coded < 0 or (is_coded == 0 and second >= 0):
                return -1
            if is_coded:
                spans[count, 0], spans[count, 1] = start, stop  # headers go with the first picture
                pict_types[count] = data[first + 4] >> 6
                count += 1
                num_waiting += 1
        num_waiting = max(0, num_waiting - 1)
        if num_waiting > 1:
            return -1
    return count - num_waiting


@numba.njit(**_OPTIONS)
def number_frames(pict_types: np.ndarray, frame_indices: np.ndarray) -> bool:
    """Give each picture its index in presentation: a B comes out at once, the others when the next
    of them comes. -> False where a picture lacks one that it refers to."""
    index = num_references = 0
    waiting = -1
    for i in range(len(pict_types)):
        if pict_types[i] == _B:
            if num_references < 2:
                return False
            frame_indices[i] = index
            index += 1
            continue
        if num_references == 0 and pict_types[i] != _I:
            return False
        if waiting >= 0:
            frame_indices[waiting] = index
            index += 1
        waiting, num_references = i, num_references + 1
    if waiting < 0:
        return False
    frame_indices[waiting] = index
    return True


@numba.njit(**_OPTIONS)
def mark_needed(
    pict_types: np.ndarray, frame_indices: np.ndarray, is_chosen: np.ndarray
) -> np.ndarray:
    """Which pictures the frames with `is_chosen[index]` need, bool [n], in decoding order."""
    is_needed = np.zeros(len(pict_types), np.bool_)
    num_references = 0  # pictures still needed as references by later ones, going backwards
    for i in range(len(pict_types) - 1, -1, -1):
        chosen = is_chosen[frame_indices[i]]
        if pict_types[i] == _B:
            is_needed[i] = chosen
            num_references = max(num_references, 2) if chosen else num_references
            continue
        is_needed[i] = num_references > 0 or chosen
        if is_needed[i]:
            num_references = max(num_references - 1, 0 if pict_types[i] == _I else 1)
    return is_needed
