"""har-predict: what it finds, prints and survives; and that a video's file and its clip in the
shards give the same answer.

`decoder` stands in for `decode_clips` where a test is not about decoding: a "video" is then a
file that holds the number of a clip in the shards.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_predictor import SMALL
from made_shards import CLASSES, make_run, make_shards

from har.pipeline.decode import VideoDecodeError, decode_clip
from har.shards.format import ClipReader, Manifest, load_manifest
from har.training.evaluation import evaluate_run
from har.training.inference import predictor, video_source
from har.training.prediction import predict_videos


@pytest.fixture
def clips(tmp_path: Path) -> Manifest:
    return make_shards(tmp_path / "shards")


@pytest.fixture
def run(tmp_path: Path, clips: Manifest) -> Path:
    return make_run(tmp_path / "run", clips)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch, clips: Manifest) -> list[dict]:
    """The calls of `decode_clips`."""
    calls: list[dict] = []

    def decode(path: Path, sampling: Any, size: tuple[int, int], **_: Any) -> list:
        calls.append({"sampling": sampling.describe(), "size": size})
        try:
            sample = int(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise VideoDecodeError(f"{path} cannot be decoded.") from error
        reader = ClipReader(clips)
        pixels = reader.read(sample)
        reader.close()
        return [SimpleNamespace(pixels=pixels, warnings={})]

    monkeypatch.setattr(predictor, "decode_clips", decode)
    return calls


def _videos(folder: Path, clips: Manifest) -> list[Path]:
    folder.mkdir()
    for sample, key in enumerate(clips.keys()):
        (folder / f"{key}.avi").write_text(str(sample))
    return sorted(folder.iterdir())


def _predict(
    run: Path, videos: list[Path], k: int = 5, views: int | None = None
) -> list[list[tuple[str, float]]]:
    """The k most probable (class, probability) of each video."""
    model = predictor.Predictor(run, views=views)
    return [model.top_classes(model.predict_video(video), k) for video in videos]


def _compare_with_shards(run: Path, files: dict[str, Path]) -> int:
    """Assert that files predict what their clips evaluate to; -> how many."""
    tested = evaluate_run(run, subset="train")["predictions"]
    answers = _predict(run, [files[row["key"]] for row in tested])
    for row, top in zip(tested, answers, strict=True):
        for probability in (top[0][1], dict(top)[row["predicted"]]):
            assert probability == pytest.approx(row["probability"], abs=1e-3)
    return len(tested)


@pytest.mark.parametrize(
    ("frames", "stride", "views"),
    [(4, None, 1), (3, None, 1), (2, None, 2), (2, "1", 1), (2, "1", 3), (2, "1-3", 2)],
)
def test_predictions_equal_the_evaluation_of_the_same_clips(
    tmp_path: Path, clips: Manifest, decoder: list, frames: int, stride: str | None, views: int
):
    run = make_run(tmp_path / f"run{frames}", clips, frames=frames, frame_stride=stride)
    evaluated = {}
    for subset in ("val", "test"):
        result = evaluate_run(run, subset=subset, views=views)
        evaluated |= {one["key"]: one for one in result["predictions"]}
    videos = [v for v in _videos(tmp_path / "videos", clips) if v.stem in evaluated]
    answers = _predict(run, videos, views=None if views == 1 else views)
    assert len(answers) == len(evaluated) == 12
    for video, top in zip(videos, answers, strict=True):
        name, probability = top[0]
        assert name == evaluated[video.stem]["predicted"]
        assert probability == pytest.approx(evaluated[video.stem]["probability"], abs=1e-3)


@pytest.mark.parametrize(
    ("model", "fit"),
    [*((model, None) for model in SMALL), ("convlstm", "crop"), ("convlstm", "pad")],
)
def test_a_real_video_file_predicts_what_its_clip_in_the_shards_evaluates_to(
    tmp_path: Path, synthetic_videos: Path, model: str, fit: str | None
):
    files = {path.stem: path for path in sorted(synthetic_videos.rglob("*.avi"))}
    names = tuple(sorted({key.split("_")[1] for key in files})[:2])

    def draw(key: str) -> np.ndarray:
        return decode_clip(files[key], frames=6, size=size, fit=fit or "squeeze").pixels

    size = (48, 24) if fit else (36, 48)
    clips = make_shards(
        tmp_path / "shards", shape=(6, *size, 3), classes=names, clips=1, draw=draw, fit=fit
    )
    settings = {"model": model, "model_options": SMALL[model], "frames": 6}
    assert _compare_with_shards(make_run(tmp_path / "run", clips, **settings), files) > 0


@pytest.fixture(scope="module")
def real_set(tmp_path_factory: pytest.TempPathFactory, real_clips: Path) -> Manifest:
    """A real clip each of five groups of two classes, built as `har-shards build` does."""
    from har.pipeline.build import BuildOptions, build_shard_set
    from har.pipeline.sampling import ClipSampler

    root = tmp_path_factory.mktemp("real")
    for name in ("Punch", "YoYo"):
        (root / "videos" / name).mkdir(parents=True)
        found = sorted((real_clips / "ucf101" / name).glob("*_c01.avi"))[:5]
        for path in found:
            (root / "videos" / name / path.name).symlink_to(path.resolve())
    options = BuildOptions(ClipSampler(frames=8), (48, 64))
    build_shard_set(root / "videos", root / "shards", options=options)
    return load_manifest(root / "shards")


@pytest.mark.real
@pytest.mark.parametrize("model", list(SMALL))
def test_a_clip_of_ucf101_predicts_what_its_built_shard_evaluates_to(
    tmp_path: Path, real_clips: Path, real_set: Manifest, model: str
):
    settings = {"model": model, "model_options": SMALL[model], "frames": 8}
    files = {path.stem: path for path in real_clips.rglob("*.avi")}
    assert _compare_with_shards(make_run(tmp_path / "run", real_set, **settings), files) >= 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"views": 4}, "--views 4 does not work: the model takes 2 of 4 frames: give 1 or 2 or 3"),
        ({"views": 2, "window": 1.0}, "--views is about whole videos"),
    ],
)
def test_views_that_cannot_be_are_refused(tmp_path: Path, clips: Manifest, options, says):
    run = make_run(tmp_path / "run", clips, frames=2, frame_stride="1")
    with pytest.raises(video_source.PredictionError, match=says):
        predict_videos(run, ["a.avi"], **options)


def test_the_video_is_decoded_as_the_shards_were_built(
    tmp_path: Path, run: Path, clips: Manifest, decoder: list
):
    _predict(run, _videos(tmp_path / "videos", clips)[:1])
    assert decoder == [{"sampling": {"rule": "paper", "frames": 4}, "size": (20, 24)}]


def test_all_classes_sum_to_one_and_come_in_falling_order(
    tmp_path: Path, run: Path, clips: Manifest, decoder: list
):
    video = _videos(tmp_path / "videos", clips)[0]
    (top,) = _predict(run, [video])
    assert {name for name, _ in top} == set(CLASSES)
    values = [probability for _, probability in top]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert _predict(run, [video], k=2) == [top[:2]]


def test_a_broken_video_is_reported_and_the_others_go_on(
    tmp_path: Path, run: Path, clips: Manifest, decoder: list, capsys
):
    good = _videos(tmp_path / "videos", clips)[:2]
    videos = [good[0], tmp_path / "missing.avi", good[1]]
    error = f"{videos[1]} cannot be decoded."
    assert predict_videos(run, videos) == 1
    out, err = capsys.readouterr()
    assert error in err
    assert [line for line in out.splitlines() if not line.startswith(" ")] == list(map(str, good))
    assert predict_videos(run, videos, top=1, as_json=True) == 1
    first, second, third = json.loads(capsys.readouterr().out)
    assert [first["video"], third["video"]] == list(map(str, good))
    assert set(first["top"][0]) == {"class", "probability"}
    assert second == {"video": str(videos[1]), "error": error}
    assert predict_videos(run, good) == 0


def test_another_error_than_a_video_fault_is_not_swallowed(
    tmp_path: Path, run: Path, clips: Manifest, decoder: list, monkeypatch
):
    def wrong(*_: Any) -> np.ndarray:
        raise ValueError("a bug")

    monkeypatch.setattr(predictor.Predictor, "preprocess", wrong)
    with pytest.raises(ValueError, match="a bug"):
        predict_videos(run, _videos(tmp_path / "videos", clips))
