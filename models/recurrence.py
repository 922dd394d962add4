"""One ConvLSTM layer over all steps of a clip, with a backward pass written by hand.

Notes:
- The input-to-state convolution runs once for a whole chunk of steps (time folded into the
  batch); only the state-to-state convolution is inside the loop, and not at a zero state.
- Given all hidden states h, the gates of any step can be had again by convolutions that do *not*
  depend on each other in time. So `keep=False` keeps h, and one cell state per `chunk` of steps,
  and recomputes everything else chunk by chunk; `keep=True` keeps the pre-activations too. Same
  arithmetic, same result.
- The stem before the layer and the pool after it are part of it, so what they produce at full
  resolution exists for one chunk at a time.
- Weight gradients are one convolution per chunk, not one per step.
- Convolutions run in the dtype of the weights, gate arithmetic (`har.models.gates`) in float32.
Layout: time-major `[T,B,C,H,W]`, channels last in memory (of 12 convolutions measured on a CPU, 9
run 1.1 to 3.9 times as fast forward as planar ones, in bfloat16 and float32, none below 0.9);
gates along the channels: input, forget, output, candidate.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .gates import activate, gates_and_cells, split, step_backward_, tanh

aten = torch.ops.aten


class Plan(NamedTuple):
    """How a layer is run. chunk: steps at a time; keep: the pre-activations, or recompute them.

    stride: of the stem, if there is one; pool, stem_pool: "max", "avg" or "none", 2x2 after the
    layer and after the stem.
    """

    chunk: int
    keep: bool
    stride: int
    pool: str
    stem_pool: str = "none"

    def sides(self, sides: Sequence[int], stem: bool) -> list[int]:
        """Height and width of the layer's input -> of its states."""
        if not stem:
            return list(sides)
        sides = [(side - 1) // self.stride + 1 for side in sides]
        return sides if self.stem_pool == "none" or min(sides) < 2 else [s // 2 for s in sides]


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
        hs = _empty_states(x, w, plan)  # [T+1,B,C,h,w]
        hs[0] = 0 if h0 is None else h0
        c = _zero_cell(hs) if c0 is None else c0
        cells: list[Tensor | None] = []
        kept: list[Tensor] = []
        for start in range(0, T, plan.chunk):
            cells.append(c if start else c0)
            z = _conv(_stem(x[start : start + plan.chunk], w, plan)[0], w.wx, w.bias)
            for j in range(z.shape[0]):
                t, step = start + j, z[j]  # [B,4C,h,w]
                if t > 0 or h0 is not None:
                    _add_state_(step, hs[t], w)
                gates, c = activate(step, c, w.peep)
                hs[t + 1] = tanh(c) * split(gates)[2]
            if plan.keep:
                kept.append(z)
        ctx.save_for_backward(x, *w, hs, *cells, *kept)
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
        dh = _zero_cell(hs) if dh is None else dh.to(_wide(hs))
        dc = _zero_cell(hs) if dc is None else dc
        dx = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        dw = Weights(*(None if v is None else torch.zeros_like(v, dtype=dc.dtype) for v in w))  # type: ignore[arg-type]
        for n in reversed(range(len(starts))):
            now = slice(starts[n], min(starts[n] + plan.chunk, T))
            u, full = _stem(x[now], w, plan)
            first = 1 if n == 0 and ctx.from_zero else 0  # steps whose state is zero
            z = kept[len(starts) + n] if plan.keep else _conv(u, w.wx, w.bias)
            for j in range(first, 0 if plan.keep else len(z)):
                _add_state_(z[j], hs[starts[n] + j], w)
            before = _zero_cell(hs) if kept[n] is None else kept[n]
            gates, cells = gates_and_cells(z, before, w.peep, in_place=not plan.keep)
            dz = gates if gates.dtype == z.dtype else z if not plan.keep else torch.empty_like(z)
            del z
            for j in reversed(range(len(gates))):
                t = starts[n] + j
                if dout is not None:
                    dh = dh + _pool_backward(dout[t], hs[t + 1], plan.pool)
                dc = step_backward_(gates[j], cells[j], cells[j + 1], dh, dc, w.peep, dw.peep)
                if dz is not gates:
                    dz[j].copy_(gates[j])
                if t > 0 or not ctx.from_zero:
                    dh = _gradients(dz[j], hs[t], w.wh, input_too=True)[0].to(dc.dtype)
            del gates, cells
            du = _add_gate_gradients_(
                dw, dz, u, hs[now], first, w, full is not None or dx is not None
            )
            del u, dz
            if full is not None and du is not None:
                du = _add_stem_gradients_(dw, du, full, x[now], w, plan, dx is not None)
            if dx is not None and du is not None:
                dx[now] = du.unflatten(0, (-1, x.shape[1]))
            del du, full
        grads = (None if v is None else dv.to(v.dtype) for v, dv in zip(w, dw, strict=True))  # type: ignore[union-attr]
        return None, dx, *((None, None) if ctx.from_zero else (dh.to(hs.dtype), dc)), *grads


def run_for_export(
    plan: Plan, x: Tensor, h: Tensor | None, c: Tensor | None, *tensors: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What `Recurrence` computes, without writing in place: a graph for other programs would have a
    scatter and a dozen operators around it for each write."""
    w = Weights(*tensors)  # type: ignore[arg-type]
    states = []
    for z in _conv(_stem(x, w, plan)[0], w.wx, w.bias).unbind(0):  # [B,4C,h,w]
        if h is not None:
            z = z + F.conv2d(h, w.wh, padding=w.wh.shape[-1] // 2)
        if w.peep is None:
            i, f, o, g = z.sigmoid().chunk(4, 1)
        else:
            i, f, o, g = z.chunk(4, 1)
            before = torch.zeros_like(i) if c is None else c
            i, f = (i + w.peep[0] * before).sigmoid(), (f + w.peep[1] * before).sigmoid()
            g = g.sigmoid()
        new = i * (2 * g - 1)
        c = new if c is None else c * f + new
        if w.peep is not None:
            o = (o + w.peep[2] * c).sigmoid()
        h = c.tanh() * o
        states.append(h)
    assert h is not None
    assert c is not None
    return _pool(torch.stack(states), plan.pool), h, c


def _empty_states(x: Tensor, w: Weights, plan: Plan) -> Tensor:
    """Room for the states before and after every step: [T+1,B,C,h,w], channels last in memory."""
    h, v = plan.sides(x.shape[-2:], w.stem_w is not None)
    room = x.new_empty((x.shape[0] + 1, x.shape[1], h, v, w.wh.shape[1]), dtype=w.wh.dtype)
    return room.permute(0, 1, 4, 2, 3)


def _wide(like: Tensor) -> torch.dtype:
    """The dtype of cells and gates: at least float32."""
    return torch.promote_types(like.dtype, torch.float32)


def _zero_cell(hs: Tensor) -> Tensor:
    """A zero cell state [B,C,h,w] for states of this shape and layout."""
    return torch.zeros_like(hs[0], dtype=_wide(hs))


def _flat(x: Tensor) -> Tensor:
    """[n,B,C,H,W] -> [n*B,C,H,W], channels last; at most one copy, none if memory is so already."""
    x = x.permute(0, 1, 3, 4, 2)
    return x.reshape(-1, *x.shape[2:]).permute(0, 3, 1, 2)


def _stem(x: Tensor, w: Weights, plan: Plan) -> tuple[Tensor, Tensor | None]:
    """[n,B,Cin,H,W] -> ([n,B,S,h,w] as the layer reads it, the same before the stem's pool).

    Strided convolution, ReLU, pool; nothing but the cast to the weights' dtype without a stem.
    """
    if w.stem_w is None:
        return x.to(w.wx.dtype), None
    y = F.conv2d(_flat(x.to(w.wx.dtype)), w.stem_w, w.stem_b, plan.stride, w.stem_w.shape[-1] // 2)
    y = y.relu_().unflatten(0, x.shape[:2])
    return (_pool(y, plan.stem_pool) if min(y.shape[-2:]) > 1 else y), y


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same padded convolution at every step: [n,B,C,h,w] -> [n,B,4C,h,w]."""
    y = F.conv2d(_flat(x), weight, bias, padding=weight.shape[-1] // 2)
    return y.unflatten(0, x.shape[:2])


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


def _add_state_(z: Tensor, h: Tensor, w: Weights) -> None:
    """Add the state-to-state convolution of h [B,C,h,w] to one step's z [B,4C,h,w]."""
    z += F.conv2d(h, w.wh, padding=w.wh.shape[-1] // 2)


def _add_gate_gradients_(
    dw: Weights, dz: Tensor, u: Tensor, h: Tensor, first: int, w: Weights, input_too: bool
) -> Tensor | None:
    """Add a chunk's gradients of wx, wh and bias to dw; returns that of u, [n*B,S,h,w], if wanted.

    dz [n,B,4C,h,w]: gradients of the pre-activations; u [n,B,S,h,w], h [n,B,C,h,w]: what they
    came from; the first `first` states are zero.
    """
    grad = dz.flatten(0, 1)
    du, dwx = _gradients(grad, _flat(u), w.wx, input_too=input_too, weight_too=True)
    dw.wx.add_(dwx)
    dw.bias.add_(grad.sum((0, 2, 3), dtype=dw.bias.dtype))
    if len(dz) > first:
        grad, flat = dz[first:].flatten(0, 1), _flat(h[first:])
        dw.wh.add_(_gradients(grad, flat, w.wh, weight_too=True)[1])
    return du if input_too else None


def _add_stem_gradients_(
    dw: Weights, du: Tensor, y: Tensor, x: Tensor, w: Weights, plan: Plan, input_too: bool
) -> Tensor | None:
    """Add a chunk's gradients of the stem to dw; returns that of its input, if wanted.

    du [n*B,S,h,w]: gradient of the stem's pooled output; y [n,B,S,..]: that before the pool.
    """
    assert w.stem_w is not None
    assert dw.stem_w is not None
    assert dw.stem_b is not None
    flat = y.flatten(0, 1)
    if du.shape != flat.shape:
        du = _pool_backward(du, flat, plan.stem_pool)
    du = aten.threshold_backward.grad_input(du, flat, 0, grad_input=du)  # the ReLU, in place
    flat_x = _flat(x.to(du.dtype))
    piece, dstem = _gradients(
        du, flat_x, w.stem_w, plan.stride, input_too=input_too, weight_too=True
    )
    dw.stem_w.add_(dstem)
    dw.stem_b.add_(du.sum((0, 2, 3), dtype=dw.stem_b.dtype))
    return piece if input_too else None


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
