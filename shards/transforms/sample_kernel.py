"""The compiled loops of `har.shards.transforms.sample_cpu`. Importing this imports numba: do it where it is used.

Odd: one output pixel of one frame is written in LLVM's own vectors, because LLVM makes scalar code
of the plain loop (0.73 ms a clip instead of 0.47). It works on addresses; `bilinear` keeps them
inside: it takes two pixels of two rows, so frames have at least 2x2 pixels, and the one place where
a load of 8 bytes would end behind the clip (the last corner) is done without it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

ONE = 1 << 10  # a weight of 1; ONE * ONE * 255 fits into int32

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_BYTES = ir.VectorType(ir.IntType(8), 8)
_INTS = ir.VectorType(_I32, 8)
_FLOATS = ir.VectorType(_F32, 4)
_HOW: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": True}


def _spread(b: Any, kind: Any, values: list[Any]) -> Any:
    """A vector of these values."""
    vector = ir.Constant(kind, ir.Undefined)
    for lane, value in enumerate(values):
        vector = b.insert_element(vector, value, _I32(lane))
    return vector


def _row(b: Any, address: Any) -> Any:
    """8 bytes from anywhere, as integers: two pixels of a row, and 2 bytes that are not used."""
    load = b.load(b.inttoptr(address, _BYTES.as_pointer()))
    load.align = 1
    return b.zext(load, _INTS)


def _pixel_code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
    source, down, ax, ay, target, *numbers = arguments
    bx, by = b.sub(_I32(ONE), ax), b.sub(_I32(ONE), ay)
    top = b.mul(_row(b, source), _spread(b, _INTS, [by] * 8))
    low = b.mul(_row(b, b.add(source, down)), _spread(b, _INTS, [ay] * 8))
    wide = b.mul(b.add(top, low), _spread(b, _INTS, [bx] * 3 + [ax] * 3 + [_I32(0)] * 2))
    left, right = (
        b.shuffle_vector(wide, wide, ir.Constant(ir.VectorType(_I32, 4), lanes))
        for lanes in ([0, 1, 2, 6], [3, 4, 5, 7])
    )
    value = b.sitofp(b.add(left, right), _FLOATS)
    value = b.fmul(value, _spread(b, _FLOATS, [*numbers[:3], _F32(0.0)]))
    value = b.fsub(value, _spread(b, _FLOATS, [*numbers[3:], _F32(0.0)]))
    for lane in range(3):
        place = b.inttoptr(b.add(target, _I64(4 * lane)), _F32.as_pointer())
        b.store(b.extract_element(value, _I32(lane)), place)
    return context.get_dummy_value()


def _pixel_type(
    context: Any, source: Any, down: Any, ax: Any, ay: Any, target: Any,
    scale0: Any, scale1: Any, scale2: Any, shift0: Any, shift1: Any, shift2: Any,
) -> Any:  # fmt: skip
    """Addresses of two pixels and of the two below -> 3 floats at address `target`."""
    address, weight, real = types.uint64, types.int32, types.float32
    signature = types.void(address, address, weight, weight, address, *[real] * 6)
    return signature, _pixel_code


_pixel: Any = intrinsic(_pixel_type)


@numba.njit(**_HOW)
def bilinear(
    clip: np.ndarray, m: np.ndarray, scale: np.ndarray, shift: np.ndarray, out: np.ndarray
) -> None:
    """uint8 [T,H,W,3] -> out float32 [T,h,w,3], both C-contiguous, H and W at least 2.

    m: [2,3] between pixel numbers. scale, shift: float32 [3], scale divided by ONE * ONE.

    Frames in the innermost loop: a tap's place and weights stay in registers.
    """
    T, H, W, _ = clip.shape
    h, w = out.shape[1], out.shape[2]
    source, target = np.uint64(clip.ctypes.data), np.uint64(out.ctypes.data)
    down, frame_in, frame_out = np.uint64(W * 3), np.uint64(H * W * 3), np.uint64(h * w * 12)
    for y in range(h):
        for x in range(w):
            fx = min(max(m[0, 0] * x + m[0, 1] * y + m[0, 2], 0.0), W - 1.0)
            fy = min(max(m[1, 0] * x + m[1, 1] * y + m[1, 2], 0.0), H - 1.0)
            left, top = min(int(fx), W - 2), min(int(fy), H - 2)
            ax, ay = np.int32((fx - left) * ONE + 0.5), np.int32((fy - top) * ONE + 0.5)
            a = source + np.uint64((top * W + left) * 3)
            q = target + np.uint64((y * w + x) * 12)
            if top == H - 2 and left == W - 2:  # 8 bytes from here end 2 behind the clip
                bx, by = ONE - ax, ONE - ay
                for t in range(T):
                    for c in range(3):
                        high = clip[t, top, left, c] * bx + clip[t, top, left + 1, c] * ax
                        low = clip[t, top + 1, left, c] * bx + clip[t, top + 1, left + 1, c] * ax
                        out[t, y, x, c] = (high * by + low * ay) * scale[c] - shift[c]
                continue
            for _ in range(T):
                _pixel(
                    a, down, ax, ay, q, scale[0], scale[1], scale[2],
                    shift[0], shift[1], shift[2],
                )  # fmt: skip
                a += frame_in
                q += frame_out


@numba.njit(**_HOW)
def average(clip: np.ndarray, factor: int) -> np.ndarray:
    """uint8 [T,H,W,3] -> the rounded means of factor x factor blocks, uint8."""
    T, H, W, C = clip.shape
    out = np.empty((T, H // factor, W // factor, C), np.uint8)
    area = factor * factor
    for t in range(T):
        for y in range(H // factor):
            for x in range(W // factor):
                for c in range(C):
                    total = area // 2
                    for dy in range(factor):
                        for dx in range(factor):
                            total += clip[t, y * factor + dy, x * factor + dx, c]
                    out[t, y, x, c] = total // area
    return out
