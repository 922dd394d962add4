"""The synthetic set: real files, UCF101's names, and classes that only motion tells apart."""

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from har.pipeline import synthetic

PICKS = 8


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey clips [N, 8, 48, 64] in 0..1, labels [N], groups [N] of 6 classes x 10 groups."""
    paths = synthetic.write_videos(tmp_path_factory.mktemp("clips"), clips=1)
    pixels = np.stack([_grey_clip(path) for path in paths])
    labels = np.array([synthetic.CLASSES.index(path.parent.name) for path in paths])
    groups = np.array([int(path.stem.split("_g")[1][:2]) for path in paths])
    return pixels, labels, groups


def _grey_frames(path: Path) -> np.ndarray:
    """uint8 [N,240,320]."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])


def _grey_clip(path: Path) -> np.ndarray:
    frames = _grey_frames(path)
    step = len(frames) // PICKS
    picked = frames[: step * PICKS : step] / 255
    return picked.reshape(PICKS, 48, 5, 64, 5).mean((2, 4))


def _accuracy(features: np.ndarray, labels: np.ndarray, train: np.ndarray) -> float:
    """Ridge regression on one-hot labels, in its dual form; test accuracy."""
    features = features - features[train].mean(0)
    features = features / (features[train].std(0) + 1e-3)
    kernel = features @ features[train].T
    targets = np.eye(len(synthetic.CLASSES))[labels[train]] - 1 / len(synthetic.CLASSES)
    ridge = 0.1 * np.trace(kernel[train]) / train.sum() * np.eye(train.sum())
    scores = kernel @ np.linalg.solve(kernel[train] + ridge, targets)
    return float((scores.argmax(1) == labels)[~train].mean())


def _shift(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Phase correlation of two grey frames: (down, right) in pixels."""
    spectrum = np.fft.fft2(after) * np.fft.fft2(before).conj()
    peak = np.fft.ifft2(spectrum / (np.abs(spectrum) + 1e-9)).real
    down, right = np.unravel_index(peak.argmax(), peak.shape)
    return int((down + 24) % 48 - 24), int((right + 32) % 64 - 32)


def test_one_frame_is_worthless(clips: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    pixels, labels, groups = clips
    accuracies = [
        _accuracy(pixels[:, at].reshape(len(pixels), -1), labels, groups % 5 != fold)
        for at in (0, 3, 7)
        for fold in range(5)
    ]
    # 15 folds of 12 clips on 6 classes: chance 1/6, standard error about 0.04 (clips repeat)
    assert np.mean(accuracies) < 1 / 6 + 0.09


def test_motion_tells_the_classes(clips: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    pixels, labels, groups = clips
    moving = [clip - np.median(clip, 0) for clip in pixels]  # without the still background
    shifts = np.array([[_shift(*pair) for pair in pairwise(clip)] for clip in moving], float)
    before, after = shifts[:, :-1], shifts[:, 1:]
    turn = (before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]).mean(1)
    features = np.column_stack([shifts.mean(1), turn, np.abs(shifts).mean(1)])
    accuracy = np.mean([_accuracy(features, labels, groups % 5 != fold) for fold in range(5)])
    assert accuracy > 0.8


SETS = [("easy", synthetic.EASY), ("hard", synthetic.HARD)]


@pytest.mark.parametrize(
    ("difficulty", "name"),
    [pytest.param(d, name, id=f"{said} {name}") for said, d in SETS for name in d.paths],
)
def test_offset_of_any_frame_is_uniform_whatever_the_class(
    name: str, difficulty: synthetic.Difficulty
) -> None:
    rng = np.random.default_rng(1)
    sample = np.array(
        [synthetic.offsets(name, 40, rng, difficulty)[[0, 20, 39]] for _ in range(2000)]
    )
    for frame in range(3):
        for axis, period in enumerate((synthetic.WIDTH, synthetic.HEIGHT)):
            counts = np.bincount(sample[:, frame, axis] * 8 // period, minlength=8)
            assert np.abs(counts / 250 - 1).max() < 0.25  # 4 standard deviations


@pytest.mark.parametrize("name", synthetic.HARD_CLASSES)
def test_a_class_is_a_path_of_its_own_at_a_pixel_a_frame(name: str) -> None:
    path = np.array([synthetic.HARD_PATHS[name](t, 1.0) for t in range(80)])  # two turns
    steps = np.diff(path, axis=0)
    assert np.hypot(*steps.T).mean() == pytest.approx(1.0, abs=0.05)  # less where a shake turns
    others = [p for other, p in synthetic.HARD_PATHS.items() if other != name]
    for other in others:
        assert np.abs(steps - np.diff([other(t, 1.0) for t in range(80)], axis=0)).max() > 0.5


def test_a_hard_set_varies_from_group_to_group_and_not_with_the_class(tmp_path: Path) -> None:
    paths = synthetic.write_videos(
        tmp_path, groups=2, clips=1, classes=["SwipeUp", "ZigzagUp"], difficulty=synthetic.HARD
    )
    looks = {path.stem[2:]: _changes(path) for path in paths}
    sharing = np.abs(looks["SwipeUp_g01_c01"] - looks["ZigzagUp_g01_c01"]).mean()
    assert sharing < np.abs(looks["SwipeUp_g01_c01"] - looks["SwipeUp_g02_c01"]).mean() / 2
    scenes = [synthetic._Scene(0, group, 1, synthetic.HARD) for group in range(1, 13)]
    assert len({scene.noise for scene in scenes}) == len({scene.drift for scene in scenes}) == 12
    assert synthetic._Scene(0, 1, 2, synthetic.HARD).noise == scenes[0].noise
    assert synthetic._Scene(0, 1, 1, synthetic.EASY).drift == (0, 0)


def _changes(path: Path) -> np.ndarray:
    """How much each pixel changes from frame to frame, sorted: noise and drift of the scene."""
    return np.sort(np.diff(_grey_frames(path).astype(float), axis=0).std(0).ravel())


def test_files_are_what_ucf101_ships(synthetic_videos: Path) -> None:
    paths = sorted(synthetic_videos.rglob("*.avi"))
    assert len(paths) == 30
    assert (synthetic_videos / "SwipeLeft" / "v_SwipeLeft_g05_c01.avi") in paths
    with av.open(str(paths[0])) as container:
        video = container.streams.video[0]
        assert video.codec_context.name == "mpeg4"
        assert (video.width, video.height, video.average_rate) == (320, 240, 25)
        keys = [packet.is_keyframe for packet in container.demux(video) if packet.size]
    assert [at for at, key in enumerate(keys) if key] == list(range(0, len(keys), 12))
    assert 40 <= len(keys) <= 56


@pytest.mark.parametrize("difficulty", [d for _, d in SETS], ids=[said for said, _ in SETS])
def test_same_seed_same_bytes_and_no_video_depends_on_the_others(
    tmp_path: Path, difficulty: synthetic.Difficulty
) -> None:
    one = {"groups": 1, "clips": 1, "classes": ["SwipeUp"], "difficulty": difficulty}
    many = synthetic.write_videos(tmp_path / "a", **{**one, "groups": 2, "classes": None})
    few = synthetic.write_videos(tmp_path / "b", **one)
    other = synthetic.write_videos(tmp_path / "c", **one, seed=1)
    twin = tmp_path / "a" / "SwipeUp" / "v_SwipeUp_g01_c01.avi"
    assert twin in many
    assert twin.read_bytes() == few[0].read_bytes() != other[0].read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))


def test_unknown_class_names_the_classes(tmp_path: Path) -> None:
    with pytest.raises(synthetic.SyntheticError, match="SwipeLeft"):
        synthetic.write_videos(tmp_path, classes=["Swim"])
    with pytest.raises(synthetic.SyntheticError, match="1-99 groups"):
        synthetic.write_videos(tmp_path, groups=0)
