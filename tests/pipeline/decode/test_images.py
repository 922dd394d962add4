"""A folder of numbered images is a video: the frames, in the order of their numbers."""

from pathlib import Path

import numpy as np
import pytest
from made_videos import resized, write_images
from PIL import Image

from har.pipeline.decode import (
    VideoDecodeError,
    decode_clip,
    decode_clips,
    order_images,
)
from har.pipeline.sampling import ClipSampler


def test_images_are_the_frames_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = write_images(tmp_path, 12, "img_{}.png")  # img_10 sorts before img_2
    clip = decode_clip(folder, frames=4, size=(24, 32))
    assert (clip.frame_indices, clip.num_padded, clip.num_decoded) == ((0, 3, 6, 9), 0, 12)
    assert (clip.num_declared, clip.fps, clip.warnings) == (12, 25.0, {})
    expected = [
        resized(np.array(Image.open(folder / f"img_{number}.png")), (24, 32))
        for number in (1, 4, 7, 10)
    ]
    np.testing.assert_array_equal(clip.pixels, expected)
    short = decode_clip(write_images(tmp_path / "short", 2), frames=4, size=(24, 32))
    assert (short.frame_indices, short.num_padded) == ((0, 1, 1, 1), 2)
    by_time = decode_clip(folder, frames=3, size=(24, 32), rule="dense", fps=12.5)
    assert by_time.frame_indices == (3, 5, 7)


def test_an_image_is_shown_as_viewers_show_it(tmp_path: Path) -> None:
    """Turned as its EXIF says, gray and alpha as RGB."""
    folder = write_images(tmp_path, 2, size=(32, 24))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    for number in (1, 2):
        path = folder / f"{number}.png"
        Image.open(path).convert("LA" if number == 2 else "RGB").save(path, exif=exif)
    clip = decode_clip(folder, frames=2, size=(24, 32))
    assert clip.num_decoded == 2
    expected = np.asarray(Image.open(folder / "1.png").rotate(-90, expand=True))
    np.testing.assert_array_equal(clip.pixels[0], expected)
    assert (clip.pixels[1][..., 0] == clip.pixels[1][..., 1]).all()


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "clip", 8)
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    sampler = ClipSampler(frames=4)
    with pytest.raises(
        VideoDecodeError, match=r"clip cannot be decoded \(3\.png is no whole image"
    ):
        decode_clips(folder, sampler, (24, 32))
    (clip,) = decode_clips(folder, sampler, (24, 32), keep_partial=True)
    assert (clip.num_decoded, clip.frame_indices) == (7, (0, 1, 2, 3))
    assert clip.warnings == {"lost": {"packets": 1, "frames": 1}}
    (tmp_path / "none").mkdir()
    with pytest.raises(VideoDecodeError, match="none has no numbered images"):
        decode_clips(tmp_path / "none", sampler, (24, 32))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["2.jpg", "10.jpg", "1.JPG", "notes.txt"], ["1.JPG", "2.jpg", "10.jpg"]),
        (["a/b/f_2.png", "a/b/f_1.png"], ["a/b/f_1.png", "a/b/f_2.png"]),
        (["f/1.jpg", "f/2.jpg", "f/._1.jpg", "f/._2.jpg"], ["f/1.jpg", "f/2.jpg"]),
        (["1.jpg"], []),
        (["img_1.jpg", "flow_x_1.jpg"], []),
        (["1.jpg", "cover.jpg"], []),
        (["1.jpg", "01.jpg"], []),
    ],
)
def test_which_images_are_one_sequence(names: list[str], expected: list[str]) -> None:
    assert order_images(names) == expected
