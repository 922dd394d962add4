"""State dicts of the first edition, whose residual networks had other names."""

import pytest
import torch
from made_models import small_model

from har import models

FIRST_EDITION = {
    "resnet3d": {
        "stem.conv.weight": "stem.0.weight",
        "stem.norm.running_mean": "stem.1.running_mean",
        "group1.0.conv1.weight": "layer1.0.conv1.0.weight",
        "group1.1.norm2.bias": "layer1.1.conv2.1.bias",
        "group3.0.skip.conv.weight": "layer3.0.downsample.0.weight",
        "group4.0.skip.norm.num_batches_tracked": "layer4.0.downsample.1.num_batches_tracked",
        "fc.bias": "fc.bias",
    },
    "r2plus1d": {
        "stem.conv.spatial.weight": "stem.0.weight",
        "stem.conv.norm.weight": "stem.1.weight",
        "stem.conv.temporal.weight": "stem.3.weight",
        "stem.norm.weight": "stem.4.weight",
        "group2.0.conv1.spatial.weight": "layer2.0.conv1.0.0.weight",
        "group2.0.conv1.norm.running_var": "layer2.0.conv1.0.1.running_var",
        "group2.1.conv2.temporal.weight": "layer2.1.conv2.0.3.weight",
        "group2.1.norm1.weight": "layer2.1.conv1.1.weight",
        "group2.0.skip.norm.bias": "layer2.0.downsample.1.bias",
    },
}


@pytest.mark.parametrize("name", FIRST_EDITION)
def test_old_names_become_torchvisions_in_the_same_order(name: str) -> None:
    keys = FIRST_EDITION[name]
    upgraded = models.upgrade_state_dict(name, dict.fromkeys(keys, torch.zeros(1)))
    assert list(upgraded) == list(keys.values())
    known = small_model(name).state_dict()
    assert all(key in known for key in upgraded)


@pytest.mark.parametrize("name", models.NAMES)
def test_names_of_today_stay(name: str) -> None:
    state_dict = small_model(name).state_dict()
    assert list(models.upgrade_state_dict(name, state_dict)) == list(state_dict)
