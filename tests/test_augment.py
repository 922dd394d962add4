"""One affine map a clip: identity, flips, agreement with torchvision, purity of the draw."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from shards import augment
from shards.augment import Augmentation

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # values stay 0..255


def smooth_clip(frames=3, height=40, width=56, seed=0):
    """A clip of low frequencies, on which two bilinear samplings must agree closely."""
    noise = torch.rand(1, 3 * frames, 5, 7, generator=torch.Generator().manual_seed(seed))
    big = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    clip = (big[0].reshape(frames, 3, height, width) * 255).round().to(torch.uint8)
    return clip.permute(0, 2, 3, 1)[None].contiguous()  # [1,T,H,W,C]


def run(clip, maps, size):
    out = augment.apply(clip, torch.as_tensor(np.asarray(maps, np.float32)), size=size, **PLAIN)
    return out[0].permute(1, 2, 3, 0)  # [T,h,w,C]


def one_map(crop, angle=0.0, flip=False, source=(40, 56), size=(32, 32)):
    return augment._map(crop, angle, flip, source, size)[None, None]


def test_the_whole_frame_at_its_own_size_is_the_identity():
    clip = smooth_clip()
    maps = one_map((0, 0, 40, 56), size=(40, 56))
    torch.testing.assert_close(run(clip, maps, (40, 56)), clip[0].float(), atol=1e-2, rtol=0)


def test_flip_mirrors_and_flipping_twice_is_the_identity():
    clip = smooth_clip()
    mirrored = run(clip, one_map((0, 0, 40, 56), flip=True, size=(40, 56)), (40, 56))
    torch.testing.assert_close(mirrored, clip[0].flip(2).float(), atol=1e-2, rtol=0)
    back = mirrored.round().to(torch.uint8)[None]
    again = run(back, one_map((0, 0, 40, 56), flip=True, size=(40, 56)), (40, 56))
    torch.testing.assert_close(again, clip[0].float(), atol=1e-2, rtol=0)


def test_an_integer_crop_takes_exactly_those_pixels():
    clip = smooth_clip()
    got = run(clip, one_map((5, 9, 32, 32)), (32, 32))
    torch.testing.assert_close(got, clip[0, :, 5:37, 9:41].float(), atol=1e-2, rtol=0)


def test_evaluation_equals_torchvisions_resize_and_centre_crop():
    clip = smooth_clip(height=48, width=64)
    maps = augment.eval_maps(1, source=(48, 64), resize=(48, 64), size=(42, 42))
    expected = v2.CenterCrop(42)(clip[0].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(run(clip, maps, (42, 42)), expected.float(), atol=1e-2, rtol=0)
    maps = augment.eval_maps(1, source=(48, 64), resize=(40, 56), size=(36, 36))
    chain = v2.Compose([v2.Resize((40, 56), antialias=False), v2.CenterCrop(36)])
    expected = chain(clip[0].permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1)
    torch.testing.assert_close(run(clip, maps, (36, 36)), expected, atol=1e-2, rtol=0)


def test_rotation_agrees_with_torchvision_away_from_the_border():
    clip = smooth_clip(height=48, width=48)
    got = run(
        clip, one_map((0, 0, 48, 48), math.radians(10), source=(48, 48), size=(48, 48)), (48, 48)
    )
    turned = v2.functional.rotate(
        clip[0].permute(0, 3, 1, 2).float(), 10, interpolation=v2.InterpolationMode.BILINEAR
    ).permute(0, 2, 3, 1)
    inner = slice(8, 40)
    assert (got[:, inner, inner] - turned[:, inner, inner]).abs().max() < 1


def test_a_rotated_crop_shows_no_black_corner():
    white = torch.full((1, 2, 40, 56, 3), 255, dtype=torch.uint8)
    got = run(white, one_map((0, 0, 40, 56), math.radians(15)), (32, 32))
    assert got.min() > 254


def test_all_frames_of_a_clip_share_one_map_unless_per_frame():
    clip = smooth_clip(frames=1).repeat(1, 4, 1, 1, 1)  # four equal frames
    draw = {"seed": 1, "epoch": 2, "keys": ["v_A_g01_c01"], "frames": 4,
            "source": (40, 56), "size": (32, 32)}  # fmt: skip
    still = run(clip, augment.train_maps(Augmentation(), **draw), (32, 32))
    assert (still == still[:1]).all()
    shaken = run(clip, augment.train_maps(Augmentation(per_frame=True), **draw), (32, 32))
    assert (shaken[0] - shaken[1]).abs().max() > 1


def test_a_draw_depends_on_seed_epoch_and_key_only():
    common = {"frames": 4, "source": (40, 56), "size": (32, 32)}
    rule = Augmentation(flip=0.5)
    together = augment.train_maps(rule, seed=1, epoch=2, keys=["a", "b", "c"], **common)
    alone = augment.train_maps(rule, seed=1, epoch=2, keys=["b"], **common)
    assert (together[1] == alone[0]).all()
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert (augment.train_maps(rule, keys=["b"], **other, **common) != alone).any()


def test_crops_stay_inside_the_frame_and_in_range():
    rule = Augmentation(scale=(0.2, 0.9))
    for key in range(300):
        (top, left, h, w), angle, flip = augment._draw(
            rule, augment._generator(0, 0, str(key)), (128, 171)
        )
        assert 0 <= top <= 128 - h
        assert 0 <= left <= 171 - w
        assert 0.2 <= h * w / (128 * 171) <= 0.9
        assert 3 / 4 <= w / h <= 4 / 3
        assert abs(angle) <= math.radians(15)
        assert not flip


def test_strong_shrinking_averages_instead_of_aliasing():
    stripes = torch.zeros(1, 1, 64, 64, 3, dtype=torch.uint8)
    stripes[:, :, :, ::2] = 255  # one-pixel stripes are grey at a quarter of the size
    maps = augment.eval_maps(1, source=(64, 64), resize=(16, 16), size=(16, 16))
    got = run(stripes, maps, (16, 16))
    assert (got - 127.5).abs().max() < 1


def test_normalisation_is_per_channel_and_layout_is_channels_last():
    clip = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 4, 8, 8, 3).contiguous()
    maps = augment.eval_maps(2, source=(8, 8), resize=(8, 8), size=(8, 8))
    out = augment.apply(
        clip, torch.from_numpy(maps), size=(8, 8), mean=(0.5, 0.2, 0.4), std=(0.5, 0.1, 0.2)
    )
    assert out.shape == (2, 3, 4, 8, 8)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert out[0, :, 0, 0, 0].tolist() == pytest.approx([-1, 0, 3], abs=1e-5)
