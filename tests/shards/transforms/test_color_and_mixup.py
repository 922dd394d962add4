"""Colour jitter against torchvision's single operations; mixup and cutmix, pixels and targets."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from har.shards.transforms import affine, color, mixup
from har.shards.transforms.clip_processor import ClipProcessor
from har.shards.transforms.clip_transform import ClipTransform


def mild_clip():
    """[1,2,3,8,9] of 60..190, so that nothing is clamped."""
    source = torch.Generator().manual_seed(0)
    return torch.rand(1, 2, 3, 8, 9, generator=source) * 130 + 60


def turned(clip, *factors):
    return color.apply_colors(clip, torch.from_numpy(color.color_matrix(*factors))[None])


def test_brightness_and_saturation_equal_torchvisions_and_factors_of_one_change_nothing():
    clip = mild_clip()
    torch.testing.assert_close(turned(clip, 1, 1, 1), clip)
    bright = F.adjust_brightness(clip / 255, 1.2) * 255
    torch.testing.assert_close(turned(clip, 1.2, 1, 1), bright, atol=0.01, rtol=0)
    grey = F.adjust_saturation(clip / 255, 0.3) * 255
    torch.testing.assert_close(turned(clip, 1, 1, 0.3), grey, atol=0.1, rtol=0)


def test_contrast_turns_about_mid_grey_and_values_are_clamped_once_at_the_end():
    clip = mild_clip()
    torch.testing.assert_close(turned(clip, 1, 0.5, 1), (clip - 127.5) * 0.5 + 127.5)
    white = torch.full((1, 1, 3, 2, 2), 255.0)
    assert turned(white, 1.5, 1, 1).max() == 255


def test_colours_are_a_function_of_seed_epoch_and_key_and_leave_the_crop_alone():
    transform = ClipTransform(1, (8, 8), (8, 8))
    jittered = ClipProcessor(transform, affine.Augmentation(color=(0.4, 0.4, 0.4)))
    plain = ClipProcessor(transform, affine.Augmentation())
    both = jittered.color_matrices(seed=1, epoch=2, keys=["a", "b"])
    assert (both[1] == jittered.color_matrices(seed=1, epoch=2, keys=["b"])[0]).all()
    assert (both[1] != jittered.color_matrices(seed=1, epoch=3, keys=["b"])[0]).any()
    assert plain.color_matrices(seed=1, epoch=2, keys=["a"]) is None
    where = {"seed": 1, "epoch": 2, "keys": ["a"], "frames": 1, "source": (20, 20)}
    assert (jittered.maps(**where) == plain.maps(**where)).all()


def drawn(kind, keys=("a", "b", "c", "d")):
    return mixup.draw(kind, 0.8, seed=1, epoch=2, keys=keys, size=(8, 10))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_share_depends_on_seed_epoch_and_key_only_and_the_layout_is_kept(kind):
    assert drawn(kind).share[2] == drawn(kind, keys=("c",)).share[0]
    assert ((drawn(kind).share >= 0) & (drawn(kind).share <= 1)).all()
    clips = torch.rand(4, 3, 2, 8, 10).contiguous(memory_format=torch.channels_last_3d)
    mixed = mixup.apply(clips, drawn(kind))
    assert mixed.is_contiguous(memory_format=torch.channels_last_3d)


def test_mixup_is_the_weighted_mean_with_the_next_clip():
    clips = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 2, 8, 10)
    how = drawn("mixup")
    got = mixup.apply(clips, how)[:, 0, 0, 0, 0]
    expected = [s * n + (1 - s) * ((n + 1) % 4) for n, s in enumerate(how.share.tolist())]
    assert got.tolist() == pytest.approx(expected, abs=1e-5)


def test_cutmix_cuts_one_box_through_all_frames_and_its_share_is_the_area_left():
    clips = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 2, 8, 10)
    how = drawn("cutmix")
    got = mixup.apply(clips, how)
    for row in range(4):
        own = (got[row] == row).float()
        assert own.mean().item() == pytest.approx(how.share[row], abs=1e-5)
        assert (own[:, 0] == own[:, 1]).all()


def test_targets_share_the_classes_as_the_pixels():
    labels, how = torch.tensor([0, 1, 2, 2]), drawn("mixup")
    got = mixup.targets(labels, how, 3)
    assert got.sum(1).tolist() == pytest.approx([1] * 4)
    assert got[0].tolist() == pytest.approx([how.share[0], 1 - how.share[0], 0])
    assert got[2].tolist() == pytest.approx([0, 0, 1])


def test_cutmix_boxes_stay_inside():
    how = mixup.draw("cutmix", 1.0, seed=0, epoch=0, keys=[str(n) for n in range(500)], size=(7, 5))
    assert how.boxes.min() >= 0
    assert (how.boxes[:, [2, 3]] <= np.array([7, 5])).all()
    assert (how.boxes[:, 2] >= how.boxes[:, 0]).all()
