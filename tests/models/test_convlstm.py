"""The ConvLSTM against the naive stack, its memory, its streaming, its hand-written gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from processors import HAS_BF16_UNITS
from torch import Tensor, nn

from har import models
from har.models.convlstm import ConvLSTM
from har.models.recurrence import Plan, Recurrence
from har.training.benchmark.baseline import NaiveConvLSTM, naive_state_dict
from har.training.inspection.memory_estimate import LiveBytes


def convlstm(**options: Any) -> ConvLSTM:
    small: dict[str, Any] = {"hidden": (4, 6), "stem_channels": 5, **options}
    model = models.build("convlstm", 7, seed=3, **small)
    assert isinstance(model, ConvLSTM)
    return model


def gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    logits = model(x)
    logits.square().sum().backward()
    return logits.detach(), {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


VARIANTS = [
    {"recompute": True, "chunk": 1},
    {"recompute": True, "chunk": 2},
    {"recompute": True, "chunk": 99},
    {"recompute": False},
    {"pooling": "max"},
    {"pooling": "none", "kernel": 5, "stem_stride": 3, "stem_kernel": 3},
    {"return_sequences": True, "hidden": (4, 5, 6)},
    {"hidden": (5,), "forget_bias": 0.0},
    {"hidden": [4, 5], "kernel": [3, 5]},
    {"stem_pool": False},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_equals_the_naive_stack(options: dict[str, Any], dtype: torch.dtype, bound: float) -> None:
    ours = convlstm(**options).to(dtype)
    naive = NaiveConvLSTM(ours)
    x = torch.randn(2, 3, 5, 21, 26, dtype=dtype, generator=torch.Generator().manual_seed(0))
    expected, theirs = gradients(naive, x)
    logits, found = gradients(ours, x)
    assert (logits - expected).abs().max() <= bound
    found = naive_state_dict(ours, found)
    assert found.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert (found[name] - gradient).abs().max() <= bound * (1 + gradient.abs().max()), name


def test_recomputing_and_keeping_give_the_same_gradients_with_peepholes() -> None:
    x = torch.randn(2, 3, 6, 20, 24)
    recomputing, keeping = (convlstm(peephole=True, recompute=r, chunk=3) for r in (True, False))
    for model in (recomputing, keeping):
        for layer in model.layers:
            nn.init.normal_(layer.peep, generator=torch.Generator().manual_seed(5))
    (logits, a), (kept_logits, b) = gradients(recomputing, x), gradients(keeping, x)
    assert (logits - kept_logits).abs().max() <= 1e-6
    for name, gradient in a.items():
        assert (gradient - b[name]).abs().max() <= 1e-6 * (1 + gradient.abs().max()), name


@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("stem", [False, True])
def test_gradcheck_of_the_recurrence(peephole: bool, state: bool, stem: bool) -> None:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, dtype=torch.float64, generator=generator)
        return drawn.requires_grad_()

    T, B, C, side = 3, 2, 2, 7
    width = 3 if stem else 2
    for pool, chunk, keep in (
        ("none", 1, False), ("avg", 2, False), ("max", 1, False),
        ("none", 3, True), ("avg", 3, True), ("max", 3, True),
    ):  # fmt: skip
        plan = Plan(chunk, keep, 2, pool, "none" if keep else pool)
        inner = plan.sides((side, side), stem)
        tensors = (
            draw(T, B, 2, side, side),
            *((draw(B, C, *inner), draw(B, C, *inner)) if state else (None, None)),
            *((draw(width, 2, 3, 3), draw(width)) if stem else (None, None)),
            draw(4 * C, width, 3, 3),
            draw(4 * C),
            draw(4 * C, C, 3, 3),
            draw(3, C, 1, 1) if peephole else None,
        )
        apply: Callable[..., Any] = lambda *a, plan=plan: Recurrence.apply(plan, *a)  # noqa: E731
        assert torch.autograd.gradcheck(apply, tensors, fast_mode=True)


@pytest.mark.parametrize("options", [{}, {"peephole": True}, {"return_sequences": True}])
def test_reading_in_pieces_equals_reading_the_whole(options: dict[str, Any]) -> None:
    model = convlstm(**options).double().eval()
    x = torch.randn(2, 3, 9, 20, 24, dtype=torch.float64)
    whole, _ = model.features(x)
    state, pieces = None, []
    for piece in x.split([1, 5, 3], 2):
        found, state = model.features(piece, state)
        pieces.append(found)
    joined = torch.cat(pieces, 2) if options.get("return_sequences") else pieces[-1]
    assert (joined - whole).abs().max() <= 1e-12


@pytest.mark.parametrize(
    "options", [{"pooling": "max"}, {"peephole": True}, {"return_sequences": True, "chunk": 3}]
)
def test_its_exported_graph_writes_nothing_in_place(options: dict[str, Any]) -> None:
    model, x = convlstm(**options).eval(), torch.randn(2, 3, 5, 24, 24)
    for layer in model.layers:
        if layer.peep is not None:
            nn.init.normal_(layer.peep)
    exported = torch.export.export(model, (x,))
    assert (exported.module()(x) - model(x)).abs().max() <= 1e-5
    names = {node.name.partition("_")[0] for node in exported.graph.nodes}
    assert "copy" not in names


def test_gradients_flow_through_a_state_handed_on() -> None:
    model = convlstm().double()
    x = torch.randn(1, 3, 6, 16, 16, dtype=torch.float64)
    _, whole = gradients(model, x)
    model.zero_grad()
    _, state = model.features(x[:, :, :4])
    features, _ = model.features(x[:, :, 4:], state)
    model.classify(features).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - whole[name]).abs().max() <= 1e-12, name


def test_features_are_the_last_step_or_all_steps() -> None:
    x = torch.randn(2, 3, 5, 24, 32)
    last, state = convlstm().features(x)
    every, _ = convlstm(return_sequences=True).features(x)
    assert last.shape == (2, 6, 3, 4)
    assert every.shape == (2, 6, 5, 3, 4)
    assert torch.equal(every[:, :, -1], last)
    assert [tuple(part.shape) for part in state[0]] == [(2, 4, 6, 8)] * 2


def test_forget_gate_starts_open() -> None:
    for layer in convlstm(forget_bias=1.5).layers:
        gates = layer.bias.view(4, -1)
        assert gates[1].eq(1.5).all()
        assert gates[[0, 2, 3]].eq(0).all()


def test_a_training_batch_of_one_clip_works() -> None:
    assert convlstm().train()(torch.randn(1, 3, 2, 16, 16)).isfinite().all()


def peak_of_a_training_step(model: nn.Module, x: Tensor) -> int:
    """Bytes alive at the worst moment of one training step, the input and all gradients counted."""
    labels = torch.zeros(len(x), dtype=torch.long)
    with LiveBytes(x) as live:
        F.cross_entropy(model(x), labels).backward()
    return live.peak


@pytest.mark.slow
@pytest.mark.parametrize(("clips", "bf16"), [(8, False), (2, HAS_BF16_UNITS)])
def test_peak_memory_is_a_quarter_of_the_naive_stack_and_below_r2plus1d(
    clips: int, bf16: bool
) -> None:
    """In float32, and as it is trained."""
    x = torch.randn(clips, 3, 16, 112, 112)
    ours = models.build("convlstm", 101, seed=0)
    assert isinstance(ours, ConvLSTM)
    naive = peak_of_a_training_step(NaiveConvLSTM(ours), x)
    r2plus1d = peak_of_a_training_step(models.build("r2plus1d", 101, seed=0), x[:1])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        lean = peak_of_a_training_step(ours, x)
    assert lean <= naive / 4, f"{lean / naive:.3f} of the naive stack"
    assert lean / clips <= r2plus1d


def test_recomputing_takes_less_memory_than_keeping() -> None:
    x = torch.randn(2, 3, 16, 64, 64)
    recomputing, keeping = (
        peak_of_a_training_step(models.build("convlstm", 5, seed=0, recompute=recompute), x)
        for recompute in (True, False)
    )
    assert recomputing < 0.7 * keeping, f"{recomputing / keeping:.3f}"
