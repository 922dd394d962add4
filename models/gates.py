"""Gate arithmetic of one ConvLSTM step, forward and backward, for `har.models.recurrence`.

Notes:
- tanh is 2 sigmoid(2x) - 1: torch's float32 tanh takes ten times its sigmoid's time on a CPU (457
  against 47 us for 200,000 values). The candidate's rows of the weights come doubled, so that all
  four gates are one sigmoid over one buffer.
- Everything is in the cell's dtype, float32 at least, whatever the convolutions ran in.
Layout: `[B,4C,h,w]`, channels: input, forget, output, candidate.
"""

import torch
from torch import Tensor

aten = torch.ops.aten


def split(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of [B,4C,h,w], one per gate. Slices, since torch.export may not write to chunks."""
    C = z.shape[1] // 4
    return z[:, :C], z[:, C : 2 * C], z[:, 2 * C : 3 * C], z[:, 3 * C :]


def tanh(x: Tensor) -> Tensor:
    return x.tanh() if x.is_cuda else (x * 2).sigmoid_().mul_(2).sub_(1)


def activate(
    z: Tensor, c: Tensor, peep: Tensor | None, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Pre-activations [B,4C,h,w] -> gates (into `out`, if given), and the next cell state."""
    wide = z.to(c.dtype)
    if peep is not None:
        i, f, o, g = split(wide)
        i, f = i + peep[0] * c, f + peep[1] * c
        next_c = (c * f.sigmoid()).addcmul_(i.sigmoid(), g.sigmoid().mul_(2).sub_(1))
        o = o + peep[2] * next_c  # the output gate sees the new cell (Shi et al., equation 3)
        wide = torch.cat([i, f, o, g], 1)
    out = torch.empty_like(wide) if out is None else out
    gates = (out if out is wide else out.copy_(wide)).sigmoid_()
    i, f, _, g = split(gates)
    g.mul_(2).sub_(1)
    return gates, (c * f).addcmul_(i, g)


def gates_and_cells(
    z: Tensor, c: Tensor, peep: Tensor | None, *, in_place: bool
) -> tuple[Tensor, list[Tensor]]:
    """Gates [n,B,4C,h,w] of a chunk and its n + 1 cell states, from z and the first cell.

    in_place: the gates may overwrite z, if they are of one dtype.
    """
    gates = z if in_place and z.dtype == c.dtype else torch.empty_like(z, dtype=c.dtype)
    cells = [c]
    for j in range(z.shape[0]):
        cells.append(activate(z[j], cells[-1], peep, gates[j])[1])
    return gates, cells


def step_backward_(
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
    The candidate is tanh(z / 2), so its derivative is half of tanh's.
    """
    i, f, o, g = split(gates)
    tanh_c = tanh(c)
    to_o, dc = dh * tanh_c, dc + aten.tanh_backward(dh * o, tanh_c)
    do = aten.sigmoid_backward.grad_input(to_o, o, grad_input=o)
    if peep is not None:
        dc += peep[2] * do
    before, to_i, to_g = dc * f, dc * g, (dc * i).mul_(0.5)
    di = aten.sigmoid_backward.grad_input(to_i, i, grad_input=i)
    df = aten.sigmoid_backward.grad_input(dc * c_before, f, grad_input=f)
    aten.tanh_backward.grad_input(to_g, g, grad_input=g)
    if peep is not None and dpeep is not None:
        before += peep[0] * di + peep[1] * df
        for n, (gate, cell) in enumerate(((di, c_before), (df, c_before), (do, c))):
            dpeep[n] += (gate * cell).sum((0, 2, 3), dtype=dpeep.dtype)[:, None, None]
    return before
