"""What an evaluation keeps for later: every clip's probabilities, thresholds, which checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_shards import CLASSES, make_run, make_shards
from PIL import Image

from har.training.cli.results import eval_main
from har.training.evaluation import (
    ProbabilitiesError,
    apply_threshold,
    evaluate_run,
    load_probabilities,
)
from har.training.runtime import checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a set of two clips a video."""
    root = tmp_path_factory.mktemp("evaluations")
    return make_run(root / "run", make_shards(root / "shards", views=2))


def har_eval(*words: object) -> Any:
    return CliRunner().invoke(eval_main, [str(word) for word in words])


def test_pictures_and_the_probabilities_of_every_clip_for_numpy_alone_are_kept(run: Path):
    result = evaluate_run(run, views=2)
    path = run / result["folder"] / "probabilities.npz"
    for name in ("confusion.png", "examples.png"):
        with Image.open(path.with_name(name)) as picture:
            assert picture.width > 100
    with np.load(path, allow_pickle=False) as arrays:
        kept = dict(arrays)
    assert (len(kept["key"]), result["clips"], result["videos"]) == (12, 12, 6)
    assert kept["probabilities"].dtype == np.float32
    assert kept["probabilities"].sum(1) == pytest.approx(np.ones(12))
    assert kept["classes"].tolist() == list(CLASSES)
    assert {key.split("+")[0] for key in kept["key"].tolist()} == set(kept["video"].tolist())
    for row in result["predictions"]:
        mean = kept["probabilities"][kept["video"] == row["key"]].mean(0)
        assert row["predicted"] == CLASSES[mean.argmax()]
        assert row["probability"] == pytest.approx(mean.max())
        assert {CLASSES[label] for label in kept["label"][kept["video"] == row["key"]]} == {
            row["true"]
        }
    clips_right = kept["probabilities"].argmax(1) == kept["label"]
    assert result["clip@1"] == pytest.approx(clips_right.mean())


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "is missing"), (b"PK", "cannot be read"), (b"", "cannot be read")],
)
def test_probabilities_that_cannot_be_read_are_named(tmp_path: Path, content, text: str):
    if content is not None:
        (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(ProbabilitiesError, match=rf"p\.npz {text}.*run har-eval again\.$"):
        load_probabilities(tmp_path / "p.npz")


def test_answers_below_a_threshold_are_unknown():
    rows = [("a", "a", 0.9), ("a", "b", 0.8), ("b", "b", 0.7), ("b", "b", 0.4)]
    names = ("true", "predicted", "probability")
    predictions = [dict(zip(names, row, strict=True)) for row in rows]
    figures = {
        threshold: list(apply_threshold(predictions, threshold).values())[1:]
        for threshold in (0, 0.7, 0.95)
    }
    assert figures == {
        0: [4, 0, 1.0, 0.75, 0.75],
        0.7: [3, 1, 0.75, 2 / 3, 0.5],  # 0.7 itself is answered
        0.95: [0, 4, 0.0, None, 0.0],
    }


def test_har_eval_says_and_keeps_what_a_threshold_does(run: Path):
    threshold = sorted(row["probability"] for row in evaluate_run(run)["predictions"])[2]
    told = har_eval(run, "--threshold", threshold)
    result = json.loads((run / "eval/grouped-test-1view/eval.json").read_text())
    kept = result["threshold"]
    assert (kept["threshold"], kept["answered"], kept["coverage"]) == (threshold, 4, 4 / 6)
    assert f"threshold {threshold:<9g}  coverage 0.6667 (4 answered, 2 unknown), " in told.output
    assert f"{kept['accuracy_of_all']:.4f} of all" in told.output
    assert "unknown), none, 0.0000 of all" in har_eval(run, "--threshold", 1).output
    refused = har_eval(run, "--threshold", 1.5)
    assert refused.exit_code == 2
    with pytest.raises(ValueError, match=r"--threshold 1\.5 does not work: give a share"):
        evaluate_run(run, threshold=1.5)


def test_another_checkpoint_or_shard_set_has_a_folder_of_its_own(run: Path, tmp_path: Path):
    run = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    state = checkpoint.load(run / "best.pt")
    checkpoint.save({**state, "epoch": 7}, run / "last.pt")
    first = har_eval(run / "best.pt")
    assert f"written: {run / 'eval/grouped-test-1view'}, " in first.output
    kept = (run / "eval/grouped-test-1view/eval.json").read_bytes()
    last = har_eval(run / "last.pt")
    assert "convlstm, last.pt of epoch 7, on test" in last.output
    assert "next:" not in last.output  # a report is of best.pt
    other = make_shards(tmp_path / "other", views=2, draw=lambda _: np.zeros((4, 20, 24, 3), "u1"))
    result = evaluate_run(run, shards=other.root)
    folders = {path.name for path in (run / "eval").iterdir()}
    own, of_last = "grouped-test-1view", "grouped-test-1view-last"
    assert folders == {own, of_last, f"{own}-shards-{other.digest[:8]}"}
    assert result["manifest_digest"] == other.digest
    assert (run / "eval" / own / "eval.json").read_bytes() == kept
