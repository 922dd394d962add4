"""Frames of another shape than the clip's: squeezed, cut to its center, or between black bars."""

from pathlib import Path

import made_videos
import numpy as np
import pytest

from har.pipeline.decode import decode_clip, resize

GREY = 200


@pytest.mark.parametrize(
    ("source", "target", "fit", "part", "filled"),
    [
        # source and target (H, W); the part of the source that is shown, and of the target filled
        ((64, 36), (24, 32), "crop", np.s_[18:45, :], np.s_[:, :]),  # portrait: 27 of 64 rows
        ((30, 80), (24, 32), "crop", np.s_[:, 20:60], np.s_[:, :]),
        ((64, 36), (24, 32), "pad", np.s_[:, :], np.s_[:, 9:23]),  # 14 of 32 columns
        ((30, 80), (24, 32), "pad", np.s_[:, :], np.s_[6:18, :]),
        ((48, 64), (24, 32), "crop", np.s_[:, :], np.s_[:, :]),
        ((48, 64), (24, 32), "pad", np.s_[:, :], np.s_[:, :]),
        ((64, 36), (24, 32), "squeeze", np.s_[:, :], np.s_[:, :]),
        ((1000, 1), (2, 50), "crop", np.s_[499:500, :], np.s_[:, :]),  # never nothing
        ((1000, 1), (2, 50), "pad", np.s_[:, :], np.s_[:, 24:25]),
    ],
)
def test_what_is_shown_and_where(
    source: tuple[int, int], target: tuple[int, int], fit: str, part: tuple, filled: tuple
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *source, 3), np.uint8)
    out = np.full((2, *target, 3), 77, np.uint8)
    resize(frames, out, fit)
    expected = np.zeros_like(out)
    for frame, wanted in zip(frames, expected, strict=True):
        wanted[filled] = made_videos.resized(frame[part], wanted[filled].shape[:2])
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("fit", ["squeeze", "crop", "pad"])
@pytest.mark.parametrize("decode_whole", [False, True])
def test_clips_are_fitted_on_both_ways_of_decoding(
    tmp_path: Path, fit: str, decode_whole: bool
) -> None:
    kind = "vp9.webm" if decode_whole else "mpeg4_b.avi"
    path = made_videos.write(tmp_path / f"a{Path(kind).suffix}", kind, size=(64, 36), frames=8)
    clip = decode_clip(path, frames=4, size=(24, 32), fit=fit)
    assert clip.source_size == (64, 36)
    expected = np.empty_like(clip.pixels)
    resize(np.stack(made_videos.by_hand(path))[list(clip.frame_indices)], expected, fit)
    np.testing.assert_array_equal(clip.pixels, expected)
