"""One affine map a clip: identity, flips, agreement with torchvision, purity of the draw."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from har.shards.transforms import affine
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.clip_transform import ClipTransform

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # values stay 0..255


def smooth_clip(frames=3, height=40, width=56, seed=0):
    """A clip of low frequencies, on which two bilinear samplings must agree closely."""
    noise = torch.rand(1, 3 * frames, 5, 7, generator=torch.Generator().manual_seed(seed))
    big = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    clip = (big[0].reshape(frames, 3, height, width) * 255).round().to(torch.uint8)
    return clip.permute(0, 2, 3, 1)[None].contiguous()  # [1,T,H,W,C]


def run(clip, maps, size):
    out = affine.sample_batch(clip, np.asarray(maps, np.float32), size=size, **PLAIN)
    return out[0].permute(1, 2, 3, 0)  # [T,h,w,C]


def one_map(crop, angle=0.0, flip=False, source=(40, 56), size=(32, 32)):
    return affine._map(crop, angle, flip, source, size)[None, None]


@pytest.mark.parametrize(
    ("crop", "flip", "expected"),
    [
        ((0, 0, 40, 56), False, lambda clip: clip),
        ((0, 0, 40, 56), True, lambda clip: clip.flip(2)),
        ((5, 9, 32, 30), False, lambda clip: clip[:, 5:37, 9:39]),
    ],
)
def test_whole_pixels_are_taken_exactly(crop, flip, expected):
    clip, size = smooth_clip(), crop[2:]
    got = run(clip, one_map(crop, flip=flip, size=size), size)
    torch.testing.assert_close(got, expected(clip[0]).float(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("crop", [(0, 0, 40, 56), (3, 7, 30, 21), (10, 20, 17, 36)])
def test_a_resized_crop_and_a_flip_agree_with_torchvision_within_a_hundredth_level(crop):
    clip, (top, left, height, width) = smooth_clip(), crop
    frames = clip[0].permute(0, 3, 1, 2).float()
    theirs = v2.functional.resized_crop(frames, top, left, height, width, (32, 32), antialias=False)
    inner = slice(1, -1)  # the crop's outermost pixels see their neighbours here, their copy there
    for flip in (False, True):
        expected = v2.functional.horizontal_flip(theirs) if flip else theirs
        got = run(clip, one_map(crop, flip=flip), (32, 32)).permute(0, 3, 1, 2)
        worst = (got - expected)[..., inner, inner].abs().max()
        assert worst < 0.01


def test_a_rotation_of_0_degrees_is_the_crop_alone():
    rule, args = Augmentation(rotation=0.0), {"frames": 1, "source": (40, 56), "size": (32, 32)}
    maps = affine.random_maps(rule, seed=1, epoch=2, keys=["a", "b"], **args)
    for row, key in enumerate("ab"):
        crop, angle, flip = affine._draw(rule, affine.generator(1, 2, key), (40, 56))
        assert (angle, flip) == (0.0, False)
        assert np.allclose(maps[row], one_map(crop)[0], atol=1e-6)
        assert maps[row, 0, 0, 1] == maps[row, 0, 1, 0] == 0
    turned = affine.random_maps(Augmentation(), seed=1, epoch=2, keys=["a", "b"], **args)
    assert np.abs(turned[:, 0, 0, 1]).min() > 0


def test_evaluation_equals_torchvisions_resize_and_centre_crop():
    clip = smooth_clip(height=48, width=64)
    maps = affine.center_crop_maps(1, source=(48, 64), resize=(48, 64), size=(42, 42))
    expected = v2.CenterCrop(42)(clip[0].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(run(clip, maps, (42, 42)), expected.float(), atol=1e-2, rtol=0)
    maps = affine.center_crop_maps(1, source=(48, 64), resize=(40, 56), size=(36, 36))
    chain = v2.Compose([v2.Resize((40, 56), antialias=False), v2.CenterCrop(36)])
    expected = chain(clip[0].permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1)
    torch.testing.assert_close(run(clip, maps, (36, 36)), expected, atol=1e-2, rtol=0)


def test_rotation_agrees_with_torchvision_away_from_the_border():
    clip = smooth_clip(height=48, width=48)
    maps = one_map((0, 0, 48, 48), math.radians(10), source=(48, 48), size=(48, 48))
    got = run(clip, maps, (48, 48)).permute(0, 3, 1, 2)
    frames, bilinear = clip[0].permute(0, 3, 1, 2).float(), v2.InterpolationMode.BILINEAR
    turned = v2.functional.rotate(frames, 10, interpolation=bilinear)
    assert (got - turned)[..., 8:40, 8:40].abs().max() < 1


def test_a_rotated_crop_shows_no_black_corner():
    white = torch.full((1, 2, 40, 56, 3), 255, dtype=torch.uint8)
    got = run(white, one_map((0, 0, 40, 56), math.radians(15)), (32, 32))
    assert got.min() > 254


def test_all_frames_of_a_clip_share_one_map_unless_per_frame():
    clip = smooth_clip(frames=1).repeat(1, 4, 1, 1, 1)  # four equal frames
    draw = {"seed": 1, "epoch": 2, "keys": ["v_A_g01_c01"], "frames": 4,
            "source": (40, 56), "size": (32, 32)}  # fmt: skip
    still = run(clip, affine.random_maps(Augmentation(), **draw), (32, 32))
    assert (still == still[:1]).all()
    shaken = run(clip, affine.random_maps(Augmentation(per_frame=True), **draw), (32, 32))
    assert (shaken[0] - shaken[1]).abs().max() > 1


def test_a_draw_depends_on_seed_epoch_and_key_only():
    common = {"frames": 4, "source": (40, 56), "size": (32, 32)}
    rule = Augmentation(hflip=0.5)
    together = affine.random_maps(rule, seed=1, epoch=2, keys=["a", "b", "c"], **common)
    alone = affine.random_maps(rule, seed=1, epoch=2, keys=["b"], **common)
    assert (together[1] == alone[0]).all()
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert (affine.random_maps(rule, keys=["b"], **other, **common) != alone).any()


def test_crops_stay_inside_the_frame_and_in_range():
    rule = Augmentation(scale=(0.2, 0.9))
    for key in range(300):
        draw = affine._draw(rule, affine.generator(0, 0, str(key)), (128, 171))
        (top, left, h, w), angle, flip = draw
        assert 0 <= top <= 128 - h
        assert 0 <= left <= 171 - w
        assert 0.2 <= h * w / (128 * 171) <= 0.9
        assert 3 / 4 <= w / h <= 4 / 3
        assert abs(angle) <= math.radians(15)
        assert not flip


def test_strong_shrinking_averages_instead_of_aliasing():
    stripes = torch.zeros(1, 1, 64, 64, 3, dtype=torch.uint8)
    stripes[:, :, :, ::2] = 255  # one-pixel stripes are grey at a quarter of the size
    maps = affine.center_crop_maps(1, source=(64, 64), resize=(16, 16), size=(16, 16))
    got = run(stripes, maps, (16, 16))
    assert (got - 127.5).abs().max() < 1


def test_normalisation_is_per_channel_and_layout_is_channels_last():
    clip = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 4, 8, 8, 3).contiguous()
    maps = affine.center_crop_maps(2, source=(8, 8), resize=(8, 8), size=(8, 8))
    out = affine.sample_batch(clip, maps, size=(8, 8), mean=(0.5, 0.2, 0.4), std=(0.5, 0.1, 0.2))
    assert out.shape == (2, 3, 4, 8, 8)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert out[0, :, 0, 0, 0].tolist() == pytest.approx([-1, 0, 3], abs=1e-5)


def natural_clip(frames=4, height=128, width=171, seed=0):
    """Edges and gradients as photographs have them: blurred noise at three scales, full range."""
    source = torch.Generator().manual_seed(seed)
    clip = torch.zeros(1, 3 * frames, height, width)
    for grid, weight in ((5, 0.6), (20, 0.3), (60, 0.1)):
        noise = torch.rand(1, 3 * frames, grid, grid, generator=source)
        clip += weight * torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")
    clip = (clip - clip.amin()) / (clip.amax() - clip.amin())
    clip = (clip[0].reshape(frames, 3, height, width) * 255).round().to(torch.uint8)
    return clip.permute(0, 2, 3, 1)[None].contiguous()


def difference(clip, processor, keys=("a", "b", "c", "d", "e", "f", "g", "h")):
    """Largest |workers' path - torch path| over the keys, in levels of 0..255."""
    many = clip.expand(len(keys), *clip.shape[1:])
    expected = processor.process_batch(many, keys=keys, seed=1, epoch=2)
    transform = processor.transform
    got = np.empty((len(keys), clip.shape[1], *transform.crop_size, 3), np.float32)
    for out, key in zip(got, keys, strict=True):
        processor.process_clip(clip[0].numpy(), out, key=key, seed=1, epoch=2)
    gap = np.abs(got - expected.permute(0, 2, 3, 4, 1).numpy()).max(axis=(0, 1, 2, 3))
    return (gap * np.asarray(transform.std) * 255).max()


@pytest.mark.parametrize(
    "rule",
    [
        None, Augmentation(hflip=0.5), Augmentation(per_frame=True), Augmentation(rotation=0),
        Augmentation(color=(0.4, 0.4, 0.4)), Augmentation(rand_augment=15),
    ],
)  # fmt: skip
def test_the_workers_path_equals_the_torch_path_on_natural_pictures(rule):
    assert difference(natural_clip(), ClipProcessor(ClipTransform(), rule)) < 0.5


def test_the_workers_path_is_within_one_level_on_noise():
    noise = torch.randint(0, 256, (1, 2, 128, 171, 3), dtype=torch.uint8)
    assert difference(noise, ClipProcessor(ClipTransform(), Augmentation())) < 1


def test_both_paths_average_blocks_alike_when_a_clip_shrinks():
    rule = Augmentation(scale=(0.1, 1.0))
    processor = ClipProcessor(ClipTransform(4, (24, 24), (24, 24)), rule)
    clip = natural_clip(height=120, width=120)
    maps = processor.maps(seed=1, epoch=2, keys=list("abcdefgh"), frames=4, source=(120, 120))
    assert len(set(affine.pool_factors(maps, (120, 120), (24, 24)).tolist())) > 1
    assert difference(clip, processor) < 1


def test_pixels_of_a_clip_do_not_depend_on_its_batch():
    clip = natural_clip(height=120, width=120).expand(8, -1, -1, -1, -1)
    common = {"seed": 1, "epoch": 2, "frames": 4, "source": (120, 120), "size": (24, 24)}
    keys = list("abcdefgh")
    maps = affine.random_maps(Augmentation(), keys=keys, **common)
    whole = affine.sample_batch(clip, maps, size=(24, 24), **PLAIN)
    for row in range(8):
        alone = affine.sample_batch(clip[:1], maps[row : row + 1], size=(24, 24), **PLAIN)
        torch.testing.assert_close(alone[0], whole[row], atol=6e-4, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_frames_of_a_pixel_or_two_are_sampled_without_reading_outside(height, width):
    processor = ClipProcessor(ClipTransform(2, (5, 7), (5, 7), **PLAIN), Augmentation())
    clip = torch.full((1, 2, height, width, 3), 77, dtype=torch.uint8)
    assert difference(clip, processor) < 0.01


def test_the_workers_path_refuses_clips_without_colour():
    processor = ClipProcessor(ClipTransform(2, (4, 4), (4, 4), (0.5,), (0.5,)))
    clip, out = np.zeros((2, 8, 8, 1), np.uint8), np.empty((2, 4, 4, 1), np.float32)
    with pytest.raises(ValueError, match="1 channels"):
        processor.process_clip(clip, out, key="a", seed=0, epoch=0)


@pytest.mark.slow
def test_drawn_parameters_have_torchvisions_distributions():
    """Kolmogorov-Smirnov, 4,000 draws each: area, ratio and place of the crop; the angle."""
    from scipy.stats import ks_2samp

    torch.manual_seed(0)
    source, draws = (128, 171), 4000
    picture = torch.zeros(3, *source)
    cut, spin = v2.RandomResizedCrop(112), v2.RandomRotation(15)
    theirs = [cut.make_params([picture]) for _ in range(draws)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in theirs], float)
    angles = [spin.make_params([picture])["angle"] for _ in range(draws)]
    generators = (affine.generator(3, 1, str(n)) for n in range(draws))
    ours = [affine._draw(Augmentation(), generator, source) for generator in generators]
    mine = np.array([crop for crop, _, _ in ours])
    for name, of in {
        "area": lambda c: c[:, 2] * c[:, 3] / (source[0] * source[1]),
        "log ratio": lambda c: np.log(c[:, 3] / c[:, 2]),
        "middle y": lambda c: c[:, 0] + c[:, 2] / 2,
        "middle x": lambda c: c[:, 1] + c[:, 3] / 2,
    }.items():
        assert ks_2samp(of(theirs), of(mine)).pvalue > 0.001, name
    assert ks_2samp(angles, [math.degrees(angle) for _, angle, _ in ours]).pvalue > 0.001
