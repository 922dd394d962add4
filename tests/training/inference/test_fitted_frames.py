"""A set's rule for frames of another shape (`har-shards build --fit`) goes with a run: into its
checkpoint, and from there into prediction, page and export."""

import shutil
from pathlib import Path

import pytest
from made_builds import build
from tiny_train import train

from har.pipeline.build import BuildOptions
from har.pipeline.sampling import ClipSampler
from har.training.evaluation.evaluate import evaluate_run
from har.training.inference.export import build_contract
from har.training.inference.predictor import Predictor
from har.training.inference.uploaded_video import UploadLimits
from har.training.runtime import checkpoint
from har.training.serving.video_service import VideoService


def test_a_run_on_cut_frames_predicts_shows_and_exports_cut_frames(
    synthetic_videos: Path, tmp_path: Path
) -> None:
    shards, run = tmp_path / "shards", tmp_path / "run"
    build(synthetic_videos, shards, BuildOptions(ClipSampler(frames=4), (48, 24), fit="crop"))
    result = train(shards, run, "--epochs", 1, model="convlstm")
    assert result.exit_code == 0, result.output
    assert checkpoint.load(run / "best.pt")["preprocessing"]["fit"] == "crop"
    evaluated = evaluate_run(run)["predictions"][0]
    video = next(synthetic_videos.rglob(f"{evaluated['key']}.avi"))
    predictor = Predictor(run, "cpu")
    ((name, probability),) = predictor.top_classes(predictor.predict_video(video), 1)
    assert (name, probability) == (
        evaluated["predicted"], pytest.approx(evaluated["probability"], abs=1e-4),
    )  # fmt: skip
    service = VideoService(predictor, UploadLimits(2, 20, 40))
    upload = service.upload_dir / "hash" / "clip.avi"
    upload.parent.mkdir()
    shutil.copy(video, upload)
    _, label, _ = service.answer({"path": str(upload)})
    service.close()
    assert label is not None
    assert label[name] == pytest.approx(probability, abs=1e-4)
    values = build_contract(predictor, True, "0" * 64)["input"]["values"]
    assert "frames cut to the proportions of this size around their center" in values
