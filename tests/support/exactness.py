"""What decoding in part must give: the frames of a plain decode from the first one."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from unittest import mock

import numpy as np
from made_videos import frames_by_hand, resized, upright

from har.pipeline.decode import clips as decode
from har.pipeline.decode.packets import PacketIndex
from har.pipeline.decode.scan import scan_video
from har.pipeline.sampling import ClipSampler

SIZE = (24, 32)
RULES = [
    ClipSampler("paper", 8),
    ClipSampler("uniform", 8),
    ClipSampler("dense", 8, stride=2, clips=2),
    ClipSampler("uniform", 1),
]


def packet_index(path: Path) -> PacketIndex | None:
    with contextlib.ExitStack() as stack:
        return scan_video(path, stack, ClipSampler())[0].index


def is_in_part(path: Path) -> bool:
    return packet_index(path) is not None


def decode_whole(path: Path, sampler: ClipSampler, size: tuple[int, int]) -> list[decode.Clip]:
    """The clips where every frame is decoded, as of a stream that cannot be trusted in part."""
    with mock.patch.object(decode, "_decode_needed", return_value=None):
        return decode.decode_clips(path, sampler, size)


def assert_exact(path: Path, rules: list[ClipSampler], size: tuple[int, int] = SIZE) -> None:
    """Against the same frames of a plain decode from the first to the last, resized one by one."""
    frames = frames_by_hand(path)

    @functools.cache
    def pixels_of(index: int) -> np.ndarray:
        return resized(upright(frames[index]), size)

    for rule in rules:
        clips = decode.decode_clips(path, rule, size)
        for clip, chosen in zip(clips, rule.clip_indices(len(frames)), strict=True):
            assert clip.num_decoded == len(frames)
            assert clip.frame_indices == chosen.frame_indices
            assert clip.num_padded == chosen.num_padded
            expected = np.stack([pixels_of(index) for index in chosen.frame_indices])
            np.testing.assert_array_equal(clip.pixels, expected)
