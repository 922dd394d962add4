"""RandAugment: each operation beside torchvision's, and what is drawn."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from har.shards.transforms import affine, color, rand_augment
from har.shards.transforms.affine import Augmentation
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.clip_transform import ClipTransform

SIZE = (40, 56)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("shear_x", {"shear": [math.degrees(math.atan(0.15)), 0.0]}),
        ("shear_y", {"shear": [0.0, math.degrees(math.atan(0.15))]}),
        ("translate_x", {"translate": [-0.5 * 150 / 331 * SIZE[1], 0]}),
        ("translate_y", {"translate": [0, -0.5 * 150 / 331 * SIZE[0]]}),
        ("rotate", {"angle": -15.0}),
    ],
)
def test_half_strength_is_half_of_torchvisions_range(name, theirs):
    noise = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 255
    clip = torch.nn.functional.interpolate(noise, SIZE, mode="bilinear").round()  # [1,3,H,W]
    inner = (..., slice(14, 26), slice(18, 38))  # what no border reaches
    whole = affine._map((0, 0, *SIZE), 0.0, False, SIZE, SIZE)
    maps = (whole @ rand_augment.affine_matrix([(name, 0.5)], SIZE))[None, None]
    got = affine.sample_batch(
        clip.byte().permute(0, 2, 3, 1)[:, None], maps.astype(np.float32), size=SIZE,
        mean=(0.0,) * 3, std=(1 / 255,) * 3,
    )[:, :, 0]  # fmt: skip
    neutral = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    expected = F.affine(clip, **{**neutral, **theirs}, interpolation=InterpolationMode.BILINEAR)
    tolerance = 4 if "translate" in name else 1  # theirs moves by whole pixels
    assert (got - expected)[inner].abs().max() < tolerance
    assert (got - clip)[inner].abs().max() > 8


@pytest.mark.parametrize(
    ("name", "theirs"), [("brightness", F.adjust_brightness), ("saturation", F.adjust_saturation)]
)
def test_colors_change_by_torchvisions_factors(name, theirs):
    clip = torch.rand(1, 2, 3, 8, 9, generator=torch.Generator().manual_seed(0)) * 60 + 60
    matrix = rand_augment.add_colors([(name, -0.5)], color.color_matrix(1, 1, 1))
    got = color.apply_colors(clip, torch.from_numpy(matrix)[None])
    torch.testing.assert_close(got, theirs(clip / 255, 1 - 0.45) * 255, atol=0.1, rtol=0)


def test_operations_follow_one_another():
    moved = rand_augment.affine_matrix([("translate_x", 1.0), ("identity", 1.0)], SIZE)
    twice = rand_augment.affine_matrix([("translate_x", 1.0), ("translate_x", -1.0)], SIZE)
    assert moved[0, 2] == pytest.approx(2 * 150 / 331)
    assert np.allclose(twice, np.eye(3))
    jitter, drawn = color.color_matrix(1.2, 0.8, 1.1), [("contrast", 0.5), ("brightness", 0.2)]
    pixel = np.array([0.3, 0.5, 0.4])
    for matrix in (jitter, color.color_matrix(1, 1.45, 1), color.color_matrix(1.18, 1, 1)):
        pixel = matrix[:, :3] @ pixel + matrix[:, 3]
    both = rand_augment.add_colors(drawn, jitter)
    assert both[:, :3] @ [0.3, 0.5, 0.4] + both[:, 3] == pytest.approx(pixel)


def test_two_operations_are_drawn_for_each_key_and_epoch():
    rule = Augmentation(rand_augment=9)
    keys = [f"k{number}" for number in range(450)]
    drawn = [affine.random_operations(rule, 0, epoch, key) for epoch in (1, 2) for key in keys]
    counts = Counter(name for pair in drawn for name, _ in pair)
    assert set(counts) == set(rand_augment.OPERATIONS)
    assert all(150 < count < 250 for count in counts.values())  # 200 of each of nine
    assert {amount for pair in drawn for _, amount in pair} == {0.3, -0.3}
    assert drawn[:450] != drawn[450:]
    assert affine.random_operations(rule, 0, 1, "k0") == drawn[0]
    assert affine.random_operations(Augmentation(), 0, 1, "k0") == []


def test_maps_and_colors_without_it_are_what_they_were():
    transform, keys = ClipTransform(1, (8, 8), (8, 8)), list("abcdefgh")
    plain, strong = (
        ClipProcessor(transform, Augmentation(rand_augment=strength)) for strength in (0, 9)
    )
    where = {"seed": 1, "epoch": 2, "keys": keys, "frames": 1, "source": (20, 20)}
    assert plain.color_matrices(seed=1, epoch=2, keys=keys) is None
    assert strong.color_matrices(seed=1, epoch=2, keys=keys).shape == (8, 3, 4)
    same = (plain.maps(**where) == strong.maps(**where)).all((1, 2, 3))
    for key, is_same in zip(keys, same, strict=True):
        names = {name for name, _ in affine.random_operations(strong.augmentation, 1, 2, key)}
        assert is_same == (not names & set(rand_augment.GEOMETRIC))
