"""The ConvLSTM recurrence over all steps of one layer, with a backward pass written by hand.

What is odd about it, and what it buys:
- The input-to-state convolution runs once for many steps (time folded into the batch); only the
  state-to-state convolution is inside the loop.
- Gate arithmetic works in place on one `[B,4C,H,W]` buffer per step: gates overwrite their
  pre-activations, and in the backward pass gradients overwrite the gates.
- Every hidden state is kept anyway, because it is the layer's output. Given those, the gates of
  any step can be had again by two convolutions that do *not* depend on each other in time. So
  "lean" keeps, beyond the states h, one cell state per `chunk` of steps, and recomputes gates
  chunk by chunk; "fast" keeps the gates of all steps. Both do the same arithmetic.
- Weight gradients are one convolution per chunk, not one per step.

Layout: time-major `[T,B,C,H,W]`, so that a step, and a chunk of steps, is one block of memory.
Gates lie in the order input, forget, output, candidate along the channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


class Recurrence(torch.autograd.Function):
    """(x, h0, c0, wx, bias, wh, peep, chunk, keep_gates) -> (h of every step, last c).

    x `[T,B,Cin,H,W]`; h0 `[B,C,H,W]` or None for zeros; c0 `[B,C,H,W]`; wx `[4C,Cin,k,k]`,
    bias `[4C]`, wh `[4C,C,k,k]`; peep `[3,C,1,1]` or None. chunk: steps recomputed at a time;
    keep_gates: keep them instead. Returns h `[T,B,C,H,W]` in x's dtype and c in c0's, which may
    be wider than x's (float32 beside bfloat16).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor,
        wx: Tensor,
        bias: Tensor,
        wh: Tensor,
        peep: Tensor | None,
        chunk: int,
        keep_gates: bool,
    ) -> tuple[Tensor, Tensor]:
        hs = x.new_empty((x.shape[0] + 1, *c0.shape))  # [T+1,B,C,H,W]
        hs[0] = 0 if h0 is None else h0
        c, cells, gates = c0, [], []
        for start in range(0, x.shape[0], chunk):
            cells.append(c)
            z = _conv(x[start : start + chunk], wx, bias)  # [n,B,4C,H,W]
            for j in range(z.shape[0]):
                t, step = start + j, z[j]
                if t > 0 or h0 is not None:  # the convolution of a zero state is zero
                    step += F.conv2d(hs[t], wh, padding=wh.shape[-1] // 2)
                c = _activate_(step, c, peep)
                hs[t + 1] = c.tanh() * _gates(step)[2]
            if keep_gates:
                gates.append(z)
        ctx.save_for_backward(x, wx, bias, wh, peep, hs, *cells, *gates)
        ctx.chunk, ctx.from_zero = chunk, h0 is None
        return hs[1:], c

    @staticmethod
    def backward(ctx: Any, dhs: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        x, wx, bias, wh, peep, hs, *kept = ctx.saved_tensors
        starts = range(0, x.shape[0], ctx.chunk)
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        sums = [torch.zeros_like(w, dtype=dc.dtype) for w in (wx, bias, wh)]
        dpeep = None if peep is None else torch.zeros_like(peep, dtype=dc.dtype)
        dh = None
        for n in reversed(range(len(starts))):
            now = slice(starts[n], min(starts[n] + ctx.chunk, x.shape[0]))
            if len(kept) > len(starts):
                z, cells = kept[len(starts) + n].clone(), [kept[n]]
                for j in range(z.shape[0]):
                    cells.append(_next_cell(z[j], cells[-1]))
            else:
                z, cells = _conv(x[now], wx, bias).add_(_conv(hs[now], wh, None)), [kept[n]]
                for j in range(z.shape[0]):
                    cells.append(_activate_(z[j], cells[-1], peep))
            for j in reversed(range(z.shape[0])):
                t = starts[n] + j
                dh = dhs[t] if dh is None else dhs[t] + dh
                dc = _step_backward_(z[j], cells[j], cells[j + 1], dh, dc, peep, dpeep)
                if t > 0 or not ctx.from_zero:
                    dh = _gradients(z[j], hs[t], wh, (True, False))[0]
            del cells
            grads = _gradients(z.flatten(0, 1), x[now].flatten(0, 1), wx, (dx is not None, True))
            if dx is not None:
                dx[now] = grads[0].unflatten(0, z.shape[:2])
            sums[0] += grads[1]
            sums[1] += z.sum((0, 1, 3, 4), dtype=dc.dtype)
            sums[2] += _gradients(z.flatten(0, 1), hs[now].flatten(0, 1), wh, (False, True))[1]
            del z, grads
        dw = [total.to(w.dtype) for total, w in zip(sums, (wx, bias, wh), strict=True)]
        return dx, None if ctx.from_zero else dh, dc, *dw, dpeep, None, None


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same padded convolution at every step: [n,B,C,H,W] -> [n,B,4C,H,W]."""
    y = F.conv2d(x.flatten(0, 1), weight, bias, padding=weight.shape[-1] // 2)
    return y.unflatten(0, x.shape[:2])


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of a padded convolution for its input and its weight, where wanted."""
    pad = [weight.shape[-1] // 2] * 2
    mask = [*wanted, False]
    grads: tuple[Tensor, Tensor, Tensor] = aten.convolution_backward(
        grad, x, weight, None, [1, 1], pad, [1, 1], False, [0, 0], 1, mask
    )
    return grads[0], grads[1]


def _gates(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of [B,4C,H,W], one per gate. Slices, since torch.export may not write to chunks."""
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
