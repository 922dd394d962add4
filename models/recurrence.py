"""One ConvLSTM layer over all steps of a clip, with a backward pass written by hand.

What is odd about it, and what it buys:
- The input-to-state convolution runs once for a whole chunk of steps (time folded into the
  batch); only the state-to-state convolution is inside the loop.
- Gate arithmetic works in place on one `[B,4C,H,W]` buffer per step: gates overwrite their
  pre-activations, and in the backward pass gradients overwrite the gates.
- Given all hidden states h, the gates of any step can be had again by convolutions that do *not*
  depend on each other in time. So "lean" keeps h, and one cell state per `chunk` of steps, and
  recomputes everything else chunk by chunk; "fast" keeps the gates. Same arithmetic, same result.
- The stem before the layer and the pool after it are part of it, so what they produce at full
  resolution exists for one chunk at a time.
- Weight gradients are one convolution per chunk, not one per step.
Layout: time-major `[T,B,C,H,W]`; gates along the channels: input, forget, output, candidate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


class Plan(NamedTuple):
    """How a layer is run. chunk: steps at a time; keep_gates: keep them instead of recomputing.

    stride: of the stem, if there is one; pool: "max", "avg" or "none", 2x2 after the layer.
    """

    chunk: int
    keep_gates: bool
    stride: int
    pool: str


class Weights(NamedTuple):
    """stem_w `[S,Cin,s,s]`, stem_b `[S]` (both None without a stem), wx `[4C,S,k,k]`,
    bias `[4C]`, wh `[4C,C,k,k]`, peep `[3,C,1,1]` or None."""

    stem_w: Tensor | None
    stem_b: Tensor | None
    wx: Tensor
    bias: Tensor
    wh: Tensor
    peep: Tensor | None


class Recurrence(torch.autograd.Function):
    """(plan, x, h0, c0, *Weights) -> (pooled h of all steps, last h, last c).

    x `[T,B,Cin,H,W]`; h0, c0 `[B,C,h,w]`, or both None for zeros. Returns `[T,B,C,h/2,w/2]`
    (`[T,B,C,h,w]` if not pooled) and `[B,C,h,w]`, both of x's dtype, and the cell, which is
    float32 beside bfloat16 or float16, where 16 steps of sums would lose their low bits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        w = Weights(*tensors)  # type: ignore[arg-type]
        T = x.shape[0]
        hs = x.new_empty((T + 1, *_state_shape(x, w, plan)))  # [T+1,B,C,h,w]
        hs[0] = 0 if h0 is None else h0
        c = _zero_cell(hs) if c0 is None else c0
        cells: list[Tensor | None] = []
        gates: list[Tensor] = []
        for start in range(0, T, plan.chunk):
            cells.append(c if start else c0)
            z = _conv(_stem(x[start : start + plan.chunk], w, plan), w.wx, w.bias)
            for j in range(z.shape[0]):
                t, step = start + j, z[j]  # [B,4C,h,w]
                if t > 0 or h0 is not None:  # the convolution of a zero state is zero
                    step += F.conv2d(hs[t], w.wh, padding=w.wh.shape[-1] // 2)
                c = _activate_(step, c, w.peep)
                hs[t + 1] = c.tanh() * _gates(step)[2]
            if plan.keep_gates:
                gates.append(z)
        ctx.save_for_backward(x, *w, hs, *cells, *gates)
        ctx.plan, ctx.from_zero = plan, h0 is None
        ctx.set_materialize_grads(False)  # the head of the last layer reads one step, not T
        return _pool(hs[1:], plan.pool), hs[T].clone(), c

    @staticmethod
    def backward(
        ctx: Any, dout: Tensor | None, dh: Tensor | None, dc: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        w, hs, kept = Weights(*saved[:6]), saved[6], saved[7:]
        plan, T = ctx.plan, x.shape[0]
        starts = range(0, T, plan.chunk)
        dh = torch.zeros_like(hs[0]) if dh is None else dh
        dc = _zero_cell(hs) if dc is None else dc
        dx = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        dw = Weights(*(None if v is None else torch.zeros_like(v, dtype=dc.dtype) for v in w))  # type: ignore[arg-type]
        both = torch.cat([w.wx, w.wh], 1)  # [4C,S+C,k,k]
        for n in reversed(range(len(starts))):
            now = slice(starts[n], min(starts[n] + plan.chunk, T))
            u = torch.cat([_stem(x[now], w, plan), hs[now]], 2)  # [n,B,S+C,h,w]
            gates = kept[len(starts) + n].clone() if plan.keep_gates else None
            before = _zero_cell(hs) if kept[n] is None else kept[n]
            z, cells = _gates_again(gates, u, both, before, w)
            for j in reversed(range(z.shape[0])):
                t = starts[n] + j
                if dout is not None:
                    dh = dh + _pool_backward(dout[t], hs[t + 1], plan.pool)
                dc = _step_backward_(z[j], cells[j], cells[j + 1], dh, dc, w.peep, dw.peep)
                if t > 0 or not ctx.from_zero:
                    dh = _gradients(z[j], hs[t], w.wh, input_too=True)[0]
            del cells
            piece = _add_gradients_(dw, z.flatten(0, 1), u.flatten(0, 1), x[now], w, both, plan, dx)
            del z, u
            if dx is not None and piece is not None:
                dx[now] = piece.unflatten(0, (-1, x.shape[1]))
        grads = (None if v is None else dv.to(v.dtype) for v, dv in zip(w, dw, strict=True))  # type: ignore[union-attr]
        return None, dx, *((None, None) if ctx.from_zero else (dh, dc)), *grads


def _state_shape(x: Tensor, w: Weights, plan: Plan) -> tuple[int, int, int, int]:
    """(B, C, h, w) of the layer's state for x [T,B,Cin,H,W]."""
    stride = 1 if w.stem_w is None else plan.stride
    h, v = ((side - 1) // stride + 1 for side in x.shape[-2:])
    return x.shape[1], w.wh.shape[1], h, v


def _zero_cell(hs: Tensor) -> Tensor:
    """A zero cell state [B,C,h,w] for states of this shape and dtype, at least float32."""
    return hs.new_zeros(hs.shape[1:], dtype=torch.promote_types(hs.dtype, torch.float32))


def _stem(x: Tensor, w: Weights, plan: Plan) -> Tensor:
    """[n,B,Cin,H,W] -> [n,B,S,h,w]: strided convolution and ReLU; nothing without a stem."""
    if w.stem_w is None:
        return x
    y = F.conv2d(x.flatten(0, 1), w.stem_w, w.stem_b, plan.stride, w.stem_w.shape[-1] // 2)
    return y.relu_().unflatten(0, x.shape[:2])


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same padded convolution at every step: [n,B,C,h,w] -> [n,B,4C,h,w]."""
    y = F.conv2d(x.flatten(0, 1), weight, bias, padding=weight.shape[-1] // 2)
    return y.unflatten(0, x.shape[:2])


def _gates(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of [B,4C,h,w], one per gate. Slices, since torch.export may not write to chunks."""
    C = z.shape[1] // 4
    return z[:, :C], z[:, C : 2 * C], z[:, 2 * C : 3 * C], z[:, 3 * C :]


def _activate_(z: Tensor, c: Tensor, peep: Tensor | None) -> Tensor:
    """Pre-activations to gates, in place; returns the next cell state."""
    C = c.shape[1]
    if peep is None:
        z[:, : 3 * C].sigmoid_()
        z[:, 3 * C :].tanh_()
        return _next_cell(z, c)
    i, f, o, g = _gates(z)
    i += peep[0] * c
    f += peep[1] * c
    z[:, : 2 * C].sigmoid_()
    g.tanh_()
    c = _next_cell(z, c)
    o += peep[2] * c  # the output gate sees the new cell (Shi et al., equation 3)
    o.sigmoid_()
    return c


def _next_cell(gates: Tensor, c: Tensor) -> Tensor:
    i, f, _, g = _gates(gates)
    return (c * f).addcmul_(i, g)


def _pool(h: Tensor, kind: str) -> Tensor:
    """[T,B,C,h,w] -> [T,B,C,h/2,w/2], or as it was."""
    if kind == "none":
        return h
    pool = F.max_pool2d if kind == "max" else F.avg_pool2d
    return pool(h.flatten(0, 1), 2).unflatten(0, h.shape[:2])


def _pool_backward(grad: Tensor, h: Tensor, kind: str) -> Tensor:
    """Gradient of one step's pool: [B,C,h/2,w/2] -> [B,C,h,w]."""
    if kind == "none":
        return grad
    two, none, one = [2, 2], [0, 0], [1, 1]
    chosen: Tensor
    if kind == "avg":
        chosen = aten.avg_pool2d_backward(grad, h, two, two, none, False, True, None)
        return chosen
    where = aten.max_pool2d_with_indices(h, two, two, none, one, False)[1]
    chosen = aten.max_pool2d_with_indices_backward(grad, h, two, two, none, one, False, where)
    return chosen


def _gates_again(
    gates: Tensor | None, u: Tensor, both: Tensor, c: Tensor, w: Weights
) -> tuple[Tensor, list[Tensor]]:
    """Gates [n,B,4C,h,w] of a chunk, recomputed if None, and its n + 1 cell states.

    u [n,B,S+C,h,w]: input and state before each step, known for all steps, so one convolution.
    """
    cells = [c]
    z = _conv(u, both, w.bias) if gates is None else gates
    for j in range(z.shape[0]):
        step = _activate_(z[j], cells[-1], w.peep) if gates is None else _next_cell(z[j], cells[-1])
        cells.append(step)
    return z, cells


def _step_backward_(
    gates: Tensor,
    c_before: Tensor,
    c: Tensor,
    dh: Tensor,
    dc: Tensor,
    peep: Tensor | None,
    dpeep: Tensor | None,
) -> Tensor:
    """Turn one step's gates into gradients of their pre-activations, in place.

    dh, dc: gradients of this step's h and c. Adds to dpeep; returns the gradient of c_before.
    """
    i, f, o, g = _gates(gates)
    tanh_c = c.tanh()
    do = aten.sigmoid_backward(dh * tanh_c, o)
    dc = dc + aten.tanh_backward(dh * o, tanh_c)
    if peep is not None:
        dc += peep[2] * do
    before = dc * f
    di = aten.sigmoid_backward(dc * g, i)
    df = aten.sigmoid_backward(dc * c_before, f)
    g.copy_(aten.tanh_backward(dc * i, g))
    i.copy_(di)
    f.copy_(df)
    o.copy_(do)
    if peep is not None and dpeep is not None:
        before += peep[0] * di + peep[1] * df
        for n, (gate, cell) in enumerate(((di, c_before), (df, c_before), (do, c))):
            dpeep[n] += (gate * cell).sum((0, 2, 3), dtype=dpeep.dtype)[:, None, None]
    return before


def _add_gradients_(
    dw: Weights,
    dz: Tensor,
    u: Tensor,
    x: Tensor,
    w: Weights,
    both: Tensor,
    plan: Plan,
    dx: Tensor | None,
) -> Tensor | None:
    """Add a chunk's gradients to dw; returns that of its input, [n*B,Cin,H,W], if dx is wanted.

    dz [n*B,4C,h,w]: gradients of the pre-activations; u [n*B,S+C,h,w]: what they came from.
    """
    S = w.wx.shape[1]
    dboth = _gradients(dz, u, both, weight_too=True)[1]
    dw.wx.add_(dboth[:, :S])
    dw.wh.add_(dboth[:, S:])
    dw.bias.add_(dz.sum((0, 2, 3), dtype=dw.bias.dtype))
    if w.stem_w is None or dw.stem_w is None or dw.stem_b is None:
        return None if dx is None else _gradients(dz, u[:, :S], w.wx, input_too=True)[0]
    dx1 = _gradients(dz, u[:, :S], w.wx, input_too=True)[0]  # [n*B,S,h,w]
    dx1 = aten.threshold_backward(dx1, u[:, :S], 0)  # the stem's ReLU
    wanted = dx is not None
    piece, dstem = _gradients(
        dx1, x.flatten(0, 1), w.stem_w, plan.stride, input_too=wanted, weight_too=True
    )
    dw.stem_w.add_(dstem)
    dw.stem_b.add_(dx1.sum((0, 2, 3), dtype=dw.stem_b.dtype))
    return piece if wanted else None


def _gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    *,
    input_too: bool = False,
    weight_too: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gradients of a padded convolution for its input and its weight; None where not wanted."""
    pad = [weight.shape[-1] // 2] * 2
    mask = [input_too, weight_too, False]
    grads: tuple[Tensor, Tensor, Tensor] = aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, pad, [1, 1], False, [0, 0], 1, mask
    )
    return grads[0], grads[1]
