"""Videos of another shape than the clips: counted, said, and fitted as asked."""

from pathlib import Path

import made_videos
import numpy as np
import pytest
from made_builds import OPTIONS, build, tree_bytes

from har.pipeline.build import BuildError, BuildOptions, PlanError
from har.pipeline.build.shapes import describe_shapes, other_shape
from har.pipeline.decode import decode_clip
from har.pipeline.inspect import describe_build, describe_set
from har.shards.format import ClipReader, load_manifest


@pytest.mark.parametrize(
    ("source", "clip", "name"),
    [
        ((240, 320), (128, 171), ""),  # UCF101
        ((256, 340), (128, 171), ""),
        ((576, 720), (128, 171), "576x720"),  # 5:4
        ((720, 1280), (128, 171), "720x1280"),
        ((640, 360), (128, 171), "640x360"),
        ((100, 100), (64, 64), ""),
    ],
)
def test_which_shapes_are_others(source: tuple[int, int], clip: tuple[int, int], name: str) -> None:
    assert other_shape(source, clip) == name


def test_one_sentence_for_many_sizes() -> None:
    shapes = {
        "shard-000000.tar": {"720x1280": 5, "1280x720": 1},
        "shard-000003.tar": {"720x1280": 2, "640x360": 3, "480x854": 1, "10x10": 1},
    }
    assert describe_shapes(shapes, 100, BuildOptions()) == (
        "13 of 100 videos have another shape than the clips, 128x171, 4 of them portrait (7 of "
        "720x1280, 3 of 640x360, 1 of 1280x720, 2 more sizes; height x width): they are squeezed "
        "to it; a build with --fit crop or pad keeps their proportions"
    )
    assert describe_shapes({}, 100, BuildOptions()) is None


def test_a_build_says_it_and_does_what_was_asked(tmp_path: Path) -> None:
    root = made_videos.tree(tmp_path / "videos", groups=3, clips=1)
    portrait = root / "YoYo" / "v_YoYo_g09_c01.avi"
    made_videos.write(portrait, size=(64, 36), frames=8)
    said = {
        "squeeze": "they are squeezed to it; a build with --fit crop or pad keeps their "
        "proportions",
        "crop": "they are cut to it, around their center",
        "pad": "they have black bars",
    }
    for fit, text in said.items():
        out = tmp_path / fit
        manifest = build(root, out, BuildOptions(OPTIONS.sampling, OPTIONS.size, fit=fit))
        assert manifest.resize.get("fit") == (None if fit == "squeeze" else fit)
        sentence = (
            "note: 1 of 7 videos has another shape than the clips, 24x32, 1 of them portrait (1 "
            f"of 64x36; height x width): {text}"
        )
        assert sentence in describe_build(manifest, out).splitlines()
        assert sentence in describe_set(out).splitlines()
        reader = ClipReader(manifest)
        clip = reader.read(manifest.keys().index(portrait.stem))
        wanted = decode_clip(portrait, frames=4, size=OPTIONS.size, fit=fit).pixels
        np.testing.assert_array_equal(clip, wanted)
        reader.close()
    before = tree_bytes(out)
    for name in ("shard-000001.tar", sorted(path.name for path in out.glob("*.tar"))[-1]):
        (out / name).unlink()
        build(root, out, BuildOptions(OPTIONS.sampling, OPTIONS.size, fit="pad"))
        assert tree_bytes(out) == before  # the note too
    with pytest.raises(BuildError, match='resize fit: "pad" there, "squeeze" now'):
        build(root, out)
    with pytest.raises(PlanError, match="--fit 'stretch': choose one of squeeze, crop, pad"):
        BuildOptions(fit="stretch")
    assert load_manifest(out).resize["size"] == [24, 32]
