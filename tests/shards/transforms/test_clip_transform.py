"""The record of a network's input: refuses what cannot be, survives a checkpoint, imports alone."""

import subprocess
import sys

import pytest

from har.shards.transforms.clip_transform import ClipTransform


def test_a_dict_of_it_gives_it_back_and_other_entries_are_ignored():
    transform = ClipTransform(8, (56, 64), (64, 85), (0.4,) * 3, (0.2,) * 3)
    assert ClipTransform.from_dict({**transform.to_dict(), "clip_shape": [1]}) == transform
    values = transform.to_dict()
    del values["mean"], values["crop_size"]
    with pytest.raises(ValueError, match="has no crop_size, mean: it needs frames, crop_size"):
        ClipTransform.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 0}, "at least 1 frame"),
        ({"crop_size": (129, 112)}, "does not fit"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"resize_size": (0, 5)}, "sizes must be positive"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ClipTransform(**values)


def test_importing_it_imports_neither_torch_nor_numba():
    code = (
        "import sys; from har.shards.transforms.clip_transform import ClipTransform; "
        "assert not {'torch', 'numba', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
