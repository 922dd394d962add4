"""The same questions to every network: shapes, gradients, determinism, learning, compilers."""

import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from made_models import small_model
from processors import HAS_BF16_UNITS
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from har import models
from har.models.frame_input import select_input
from har.models.video_resnet import BasicBlock, drop_clips
from har.shards.transforms.clip_transform import ClipTransform

every_model = pytest.mark.parametrize("name", models.NAMES)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Tiny convolutions on two threads of a busy machine run up to 50 times slower than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def clips(*shape: int, seed: int = 0) -> Tensor:
    """Random clips [B,3,T,H,W] of the given B, T, H, W."""
    B, T, H, W = shape
    return torch.randn(B, 3, T, H, W, generator=torch.Generator().manual_seed(seed))


SIZES = [(56, 56), (112, 112), (128, 171)]


@every_model
@pytest.mark.parametrize("frames", [4, 8, 16, 17])
def test_logits_have_the_right_shape_and_are_finite(name: str, frames: int) -> None:
    logits = small_model(name).eval()(clips(1, frames, 56, 56))
    assert logits.shape == (1, 5)
    assert logits.isfinite().all()


@pytest.mark.slow
@every_model
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("frames", [4, 8, 16, 17])
def test_full_size_networks_take_any_length_and_size(
    name: str, frames: int, size: tuple[int, int]
) -> None:
    model = models.build(name, 101, seed=0, weights="none").eval()
    with torch.inference_mode():
        logits = model(clips(1, frames, *size))
    assert logits.shape == (1, 101)
    assert logits.isfinite().all()


@every_model
def test_every_parameter_has_a_gradient(name: str) -> None:
    model = small_model(name)
    F.cross_entropy(model(clips(2, 4, 32, 40)), torch.tensor([0, 3])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@every_model
def test_eval_answers_the_same_twice_and_in_any_batch_order(name: str) -> None:
    model = small_model(name).eval()
    x = clips(3, 4, 32, 40)
    with torch.no_grad():
        first = model(x)
        assert torch.equal(first, model(x))
        assert (model(x[[2, 0, 1]]) - first[[2, 0, 1]]).abs().max() <= 1e-5
        assert (model(x[:1]) - first[:1]).abs().max() <= 1e-5


@every_model
def test_learns_one_small_batch(name: str) -> None:
    model = small_model(name, 4)
    x, y = clips(4, 4, 16, 16), torch.arange(4)
    lr = 2e-2 if name == "convlstm" else 3e-3
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(40):
        logits = model(x)
        if logits.softmax(1).diagonal().min() > 0.99:
            return
        optimizer.zero_grad()
        F.cross_entropy(logits, y).backward()
        optimizer.step()
    raise AssertionError(f"{logits.softmax(1)} after 40 steps")


@every_model
def test_state_dict_round_trip(name: str) -> None:
    one = small_model(name)
    one(clips(2, 4, 24, 24))  # moves running statistics
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    two = small_model(name, seed=1)
    two.load_state_dict(torch.load(file, weights_only=True))
    x = clips(1, 4, 24, 24, seed=1)
    assert torch.equal(one.eval()(x), two.eval()(x))


@every_model
def test_bfloat16_autocast_stays_near_float32(name: str) -> None:
    """Bound: 5% of the largest logit in eval, and gradients of every parameter are finite.

    17 frames, since these become 9, 5 and 3 in the residual groups: at 2 frames the CPU kernels
    of torch 2.15 (oneDNN) leave bfloat16 weight gradients of 3-tap convolutions uninitialised.
    """
    if name == "r3d" and not HAS_BF16_UNITS:
        pytest.skip("a full network in emulated bf16 takes minutes")
    model = small_model(name).eval()
    nn.init.normal_(model.get_parameter("fc.weight"), generator=torch.Generator().manual_seed(1))
    x = clips(2, 17, 16, 20)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() <= 0.05 * exact.abs().max()
    rough.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_model
def test_channels_last_gives_the_same(name: str) -> None:
    model = small_model(name).eval()
    x = clips(2, 4, 32, 40)
    with torch.no_grad():
        expected = model(x)
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        found = model(x.contiguous(memory_format=torch.channels_last_3d))
    assert (found - expected).abs().max() <= 1e-5 * (1 + expected.abs().max())


@pytest.mark.parametrize(  # R3D is built of the parts of ResNet3D
    "name", ["resnet3d", "r2plus1d", "convlstm", pytest.param("r3d", marks=pytest.mark.slow)]
)
def test_compiles_whole_and_does_not_recompile_for_equal_shapes(name: str) -> None:
    torch._dynamo.reset()
    model, twin = small_model(name), small_model(name)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in (1, 2, 3):
            x = clips(2, 4, 24, 24, seed=seed)
            found, expected = compiled(x), twin(x)
            assert (found - expected).abs().max() <= 1e-4
            found.square().sum().backward()
            expected.square().sum().backward()
    for (key, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad - q.grad).abs().max() <= 1e-4 * (1 + q.grad.abs().max()), key


@pytest.mark.slow
@every_model
def test_inductor_gives_the_same(name: str) -> None:
    torch._dynamo.reset()
    model = small_model(name).eval()
    x = clips(1, 3, 16, 16)
    expected = model(x)
    found = torch.compile(model, fullgraph=True)(x)
    assert (found - expected).abs().max() <= 1e-4 * (1 + expected.abs().max())


@every_model
def test_exports(name: str) -> None:
    model = small_model(name).eval()
    x = clips(2, 4, 24, 24)
    exported = torch.export.export(model, (x,))
    assert (exported.module()(x) - model(x)).abs().max() <= 1e-5


@every_model
def test_its_clip_transform_is_that_of_torchvisions_weights(name: str) -> None:
    from torchvision.models.video import R3D_18_Weights

    expected = R3D_18_Weights.KINETICS400_V1.transforms()
    transform = small_model(name).transform
    assert isinstance(transform, ClipTransform)
    names = ("crop_size", "resize_size", "mean", "std")
    assert transform.to_dict() == {"frames": 16, **{n: getattr(expected, n) for n in names}}


@every_model
@pytest.mark.parametrize("kind", ["rgb", "diff", "rgb+diff"])
def test_the_first_layer_reads_frames_differences_or_both(name: str, kind: str) -> None:
    """The same as convolving the differences by hand: a network of RGB with those weights."""
    net = small_model(name, input=kind).eval()
    first = next(p for p in net.parameters() if p.dim() == 5)
    assert first.shape[1] == {"rgb": 3, "diff": 3, "rgb+diff": 6}[kind]
    x = torch.randn(2, 3, 4, 24, 24, generator=torch.Generator().manual_seed(1))
    difference = torch.zeros_like(x)
    difference[:, :, 1:] = x[:, :, 1:] - x[:, :, :-1]
    read = {"rgb": x, "diff": difference, "rgb+diff": torch.cat([x, difference], 1)}[kind]
    assert torch.equal(select_input(x, kind), read)
    assert select_input(x[:, :, :1], kind).shape[2] == 1
    expected = net(x)
    net.input = "rgb"  # reads what it is given
    torch.testing.assert_close(net(read), expected)


@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d", "r3d"])
def test_stochastic_depth_grows_to_the_last_block_and_leaves_evaluation_alone(name: str) -> None:
    plain, net = (small_model(name, drop_path=rate) for rate in (0.0, 0.4))
    rates = [module.drop_path for module in net.modules() if isinstance(module, BasicBlock)]
    assert rates == pytest.approx([0.05 * n for n in range(1, 9)])
    x = torch.randn(2, 3, 2, 16, 16)
    assert torch.equal(plain.eval()(x), net.eval()(x))
    assert not torch.equal(plain.train()(x), net.train()(x))


@pytest.mark.parametrize("probability", [0.2, 0.9])
def test_clips_are_dropped_as_torchvision_does(probability: float) -> None:
    x = torch.randn(64, 2, 1, 2, 2)
    torch.manual_seed(3)
    expected = stochastic_depth(x, probability, "row", training=True)
    torch.manual_seed(3)
    assert torch.equal(drop_clips(x, probability), expected)
    assert drop_clips(x, 0.0) is x
