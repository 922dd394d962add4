"""Which stored frames a clip's views and random windows take."""

import numpy as np
import pytest

from har.shards.transforms import temporal_sampling as sampling


@pytest.mark.parametrize(
    ("stored", "frames", "stride", "views", "expected"),
    [
        (8, 4, None, 1, [[0, 2, 4, 6]]),
        (8, 4, None, 2, [[0, 2, 4, 6], [1, 3, 5, 7]]),
        (7, 3, None, 1, [[0, 2, 4]]),
        (8, 4, 1, 1, [[2, 3, 4, 5]]),  # in the middle
        (8, 4, 2, 1, [[0, 2, 4, 6]]),
        (8, 3, 2, 3, [[0, 2, 4], [1, 3, 5], [3, 5, 7]]),  # from the first frame to the last
        (9, 3, 2, 2, [[0, 2, 4], [4, 6, 8]]),
        (4, 4, 1, 1, [[0, 1, 2, 3]]),
        (5, 1, 3, 3, [[0], [2], [4]]),
    ],
)
def test_frames_of_each_view(stored, frames, stride, views, expected):
    numbers = [
        sampling.view_frames(stored, frames, stride, k, views).tolist() for k in range(views)
    ]
    assert numbers == expected
    assert sampling.max_views(stored, frames, stride) >= views


@pytest.mark.parametrize(("stored", "frames", "views"), [(9, 3, 3), (18, 3, 6), (22, 1, 22)])
def test_even_views_share_no_frame(stored, frames, views):
    numbers = [sampling.view_frames(stored, frames, None, k, views) for k in range(views)]
    assert len(np.unique(numbers)) == frames * views


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        (None, {(0, 3), (1, 4), (2, 5)}),
        ((2, 2), {(0, 2), (1, 3), (2, 4), (3, 5)}),
        ((4, 5), {(0, 4), (1, 5), (0, 5)}),
    ],
)
def test_random_frames_are_all_that_the_clip_holds(strides, expected):
    random = np.random.default_rng(0)
    drawn = {tuple(sampling.random_frames(6, 2, strides, random).tolist()) for _ in range(200)}
    assert drawn == expected


@pytest.mark.parametrize(
    ("views", "num_clips", "stride", "parts"),
    [
        (1, 1, None, (1, 1)), (2, 1, None, (1, 2)), (3, 1, None, None), (0, 1, None, None),
        (1, 2, None, (1, 1)), (2, 2, None, (2, 1)), (3, 2, None, None), (4, 2, None, (2, 2)),
        (5, 1, 1, (1, 5)), (6, 1, 1, None),
    ],
)  # fmt: skip
def test_views_are_clips_or_several_of_each(views, num_clips, stride, parts):
    assert sampling.split_views(views, num_clips, 8, 4, stride) == parts


def test_what_views_are_possible_is_said_in_a_few_words():
    assert sampling.describe_views(2, 8, 4, None) == "1 or 2 or 4"
    assert sampling.describe_views(1, 64, 16, 2) == "1 to 34"
    assert sampling.describe_views(3, 64, 16, 2) == "1 to 102, a multiple of 3"
    sizes = [(32, 16), (31, 16), (32, 8), (64, 8), (16, 16), (8, 1), (5, 2)]
    fitting = [(1, 2), (1, 2), (1, 4), (1, 4), None, None, (1, 4)]
    assert [sampling.auto_strides(*size) for size in sizes] == fitting
    assert [sampling.eval_stride(s) for s in (None, (2, 2), (1, 4))] == [None, 2, 2]
