"""har-eval on tiny hand-made shard sets and checkpoints; its numbers recomputed the slow way."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_shards import CLASSES, make_run, make_shards

from har.shards import splits
from har.shards.edit import relabel_clips, remove_clips
from har.shards.format import Manifest
from har.training.evaluation import (
    FoldError,
    Predictions,
    describe_evaluation,
    evaluate,
    evaluate_run,
    join_probabilities,
    leak_text,
    list_probabilities,
    load_probabilities,
    metrics,
    pool_folds,
    summarize,
)
from har.training.plots import choose_examples
from har.training.runtime import checkpoint

FOLDER = "eval/grouped-test-1view"


pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture
def clips(tmp_path: Path) -> Manifest:
    return make_shards(tmp_path / "shards")


@pytest.fixture
def run(tmp_path: Path, clips: Manifest) -> Path:
    return make_run(tmp_path / "run", clips)


class _Table(torch.nn.Module):
    """Logits from a table: the clip's first value is its row."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.logits[clips[:, 0, 0, 0, 0].long()]


def _batches(ids: list[list[int]], valid: list[list[bool]]) -> list[Any]:
    return [
        SimpleNamespace(
            clips=torch.tensor(some, dtype=torch.float32).view(-1, 1, 1, 1, 1),
            labels=torch.tensor(some) % 3,
            indices=torch.tensor(some),
            valid=torch.tensor(good),
        )
        for some, good in zip(ids, valid, strict=True)
    ]


def test_padding_rows_are_left_out_and_gives_softmax_and_unweighted_loss():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    batches = _batches([[0, 1], [2, 0]], [[True, True], [True, False]])
    found = evaluate.predict_batches(_Table(logits), batches)
    assert found.indices.tolist() == [0, 1, 2]
    assert found.probabilities.dtype == found.losses.dtype == np.float32
    exact = np.exp(logits[:3].double().numpy())
    exact /= exact.sum(1, keepdims=True)
    assert found.probabilities == pytest.approx(exact, abs=1e-6)
    expected = [-np.log(exact[i, i]) for i in range(3)]
    assert found.losses == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize(("ids", "views"), [([[0, 1], [1, 2]], 1), ([[0, 1], [0, 1]], 2)])
def test_clips_that_come_twice_or_apart_are_an_error_not_a_mean(ids: list, views: int):
    batches = _batches(ids, [[True, True], [True, True]])
    with pytest.raises(evaluate.EvaluationError, match="twice, or its views came apart"):
        evaluate.predict_batches(_Table(torch.zeros(6, 3)), batches, views=views)


def test_every_number_of_eval_json_is_what_the_model_says_clip_by_clip(run: Path, clips: Manifest):
    result = evaluate_run(run)
    assert json.loads((run / FOLDER / "eval.json").read_text()) == result
    test = splits.make_split(clips, "grouped").test
    assert (result["clips"], result["videos"]) == (len(test), len(test)) == (6, 6)
    probabilities, labels = _by_hand(run, clips, test)
    said = probabilities.argmax(1)
    assert result["video@1"] == result["clip@1"] == pytest.approx((said == labels).mean())
    assert "video@5" not in result  # of three classes it would say nothing
    losses = -np.log(probabilities[np.arange(6), labels])
    assert result["loss"] == pytest.approx(losses.mean(), abs=1e-4)
    keys = clips.keys(test)
    for one in result["predictions"]:
        row = keys.index(one["key"])
        assert one["true"] == CLASSES[labels[row]]
        assert one["predicted"] == CLASSES[said[row]]
        assert one["probability"] == pytest.approx(probabilities[row].max(), abs=1e-4)
    assert np.array(result["confusion"]).sum() == 6
    assert result["interval"][0] <= result["video@1"] <= result["interval"][1]
    assert result["split"] == splits.make_split(clips, "grouped").describe()
    assert (result["epoch"], result["views"], result["on"]) == (3, 1, "test")
    assert result["multiply_adds"] > 0


def _by_hand(
    run: Path, clips: Manifest, ids: np.ndarray, frames: np.ndarray | None = None
) -> tuple[np.ndarray, Any]:
    """Probabilities [N,K] and labels: one clip at a time, torch's own resize, no loader.

    frames: which of the stored ones, None for all.
    """
    model = checkpoint.restore_model(checkpoint.load(run / "best.pt"))
    raw = (clips.root / "shard-000000.tar").read_bytes()
    rows = []
    for sample in ids.tolist():
        at = int(clips.index["offset"][sample])
        pixels = np.frombuffer(raw, np.uint8, clips.clip_bytes, at).reshape(clips.clip_shape)
        pixels = pixels if frames is None else pixels[frames]
        x = torch.tensor(pixels).permute(0, 3, 1, 2).float()  # [T,C,H,W]
        x = torch.nn.functional.interpolate(x, (18, 24), mode="bilinear", align_corners=False)
        x = (x[:, :, 1:17, 4:20] / 255 - 0.4) / 0.2
        with torch.inference_mode():
            rows.append(model(x.permute(1, 0, 2, 3)[None]).softmax(1)[0].double().numpy())
    return np.array(rows), clips.index["label"][ids].astype(int)


def test_no_evaluation_replaces_another(tmp_path: Path):
    clips = make_shards(tmp_path / "shards", views=2)
    run = make_run(tmp_path / "run", clips)
    asked: list[dict[str, Any]] = [
        {}, {"subset": "val", "batch_size": 3}, {"views": 2},
        {"split": "paper", "allow_other_split": True},
    ]  # fmt: skip
    results = [evaluate_run(run, **options) for options in asked]
    other = results[-1]["split"]["digest"][:8]
    names = ("grouped-test-1view", "grouped-val-1view", "grouped-test-2views")
    for name, result in zip((*names, f"paper-test-1view-{other}"), results, strict=True):
        folder = run / "eval" / name
        assert json.loads((folder / "eval.json").read_text()) == result
        files = {"eval.json", "probabilities.npz", "per_class.csv", "confusion.png", "examples.png"}
        assert {path.name for path in folder.iterdir()} == files
    assert len(list((run / "eval").iterdir())) == 4
    assert describe_evaluation(results[1]).endswith(f"next: har-report {run} --subset val")
    assert describe_evaluation(results[2]).endswith(f"next: har-report {run} --views 2")


def test_folds_are_pooled_as_one_evaluation_of_all_videos(tmp_path: Path):
    """Every figure against the one that the joint predictions give."""
    clips = make_shards(tmp_path / "shards", views=2)
    results = []
    for fold in (3, 1, 2):
        run = make_run(tmp_path / f"fold-{fold}", clips, split=f"fold-{fold}/3", seed=fold)
        results.append(evaluate_run(run, views=2))
    kept = [load_probabilities(Path(r["run"], r["folder"], "probabilities.npz")) for r in results]
    pooled = pool_folds(results, "runs", join_probabilities(kept))
    assert (pooled["videos"], pooled["clips"]) == (30, 60)
    rows = [row for result in results for row in result["predictions"]]
    assert pooled["predictions"] == sorted(rows, key=lambda row: row["key"])
    assert len({row["key"] for row in rows}) == 30
    right = np.array([row["true"] == row["predicted"] for row in rows])
    assert pooled["video@1"] == pytest.approx(right.mean())
    assert pooled["interval"] == list(metrics.wilson_interval(right.sum(), 30))
    confusions = [result["confusion"] for result in results]
    assert pooled["confusion"] == np.sum(confusions, axis=0).tolist()
    for name in ("loss", "clip@1"):  # each fold has as many clips
        assert pooled[name] == pytest.approx(np.mean([result[name] for result in results]))
    assert [row["fold"] for row in pooled["folds"]] == [1, 2, 3]
    assert (pooled["split"]["name"], pooled["split"]["leak"]) == ("3 folds", 0)
    two = pool_folds(results[:2], "runs", join_probabilities(kept[:2]))
    assert (two["split"]["name"], two["videos"]) == ("2 of 3 folds", 20)
    text = describe_evaluation(pooled)
    low, high = (pick(row["video@1"] for row in pooled["folds"]) for pick in (min, max))
    assert f"video@1 of the folds {low:.4f} to {high:.4f}, mean " in text
    with pytest.raises(FoldError, match=r"a video was tested in two folds \(1, 3, 3\)"):
        pool_folds([*results[:2], results[0]], "runs", join_probabilities(kept))


def test_a_table_of_the_classes_lies_beside_eval_json(run: Path):
    result = evaluate_run(run)
    run = run / FOLDER
    with open(run / "per_class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    columns = ["class", "precision", "recall", "f1", "support", "average_precision"]
    assert list(rows[0]) == columns
    assert [float(row["recall"]) for row in rows] == [c["recall"] for c in result["per_class"]]


def test_batch_size_does_not_change_the_result(run: Path):
    one, all_at_once = (evaluate_run(run, batch_size=size) for size in (1, 100))
    assert one["predictions"] == [
        {**row, "probability": pytest.approx(row["probability"], abs=1e-5)}
        for row in all_at_once["predictions"]
    ]


def test_views_of_a_video_are_averaged(tmp_path: Path):
    clips = make_shards(tmp_path / "shards", views=3)
    run = make_run(tmp_path / "run", clips)
    result = evaluate_run(run, views=2)
    test = splits.make_split(clips, "grouped").test
    test = test[clips.index["view"][test] < 2]
    assert (result["clips"], result["videos"]) == (12, 6)
    probabilities, labels = _by_hand(run, clips, test)
    assert result["clip@1"] == pytest.approx((probabilities.argmax(1) == labels).mean())
    videos = clips.index["video"][test]
    mean = {v: probabilities[videos == v].mean(0) for v in np.unique(videos)}
    right = [mean[v].argmax() == labels[videos == v][0] for v in mean]
    assert result["video@1"] == pytest.approx(np.mean(right))
    keys = {one["key"] for one in result["predictions"]}
    assert not any("+" in key for key in keys)


def _views_by_hand(
    run: Path, clips: Manifest, ids: np.ndarray, views: int, stride: int | None = None
) -> np.ndarray:
    """Mean probabilities [N,K] over views of 8 stored frames for a model of 4: phases k/K, or
    windows of neighbours from the first frame to the last."""
    windows = [np.array([2 * t + 2 * k // views for t in range(4)]) for k in range(views)]
    if stride == 1:
        starts = [2] if views == 1 else [4 * k // (views - 1) for k in range(views)]
        windows = [start + np.arange(4) for start in starts]
    return np.mean([_by_hand(run, clips, ids, frames)[0] for frames in windows], axis=0)


@pytest.mark.parametrize(
    ("batch_size", "views", "stride"),
    [(3, 2, None), (4, 2, None), (100, 2, None), (4, 1, 1), (3, 3, 1), (100, 5, 1)],
)
def test_views_are_cut_out_of_clips_that_hold_more_frames(
    tmp_path: Path, batch_size: int, views: int, stride: int | None
):
    clips = make_shards(tmp_path / "shards", shape=(8, 20, 24, 3))
    run = make_run(tmp_path / "run", clips, frame_stride=str(stride) if stride else None)
    result = evaluate_run(run, views=views, batch_size=batch_size)
    test = splits.make_split(clips, "grouped").test
    assert (result["clips"], result["videos"], result["views"]) == (6, 6, views)
    probabilities = _views_by_hand(run, clips, test, views, stride)
    assert not np.allclose(probabilities, _views_by_hand(run, clips, test, 1), atol=1e-4)
    if stride:
        with pytest.raises(evaluate.EvaluationError, match="takes 4 of stride 1: give 1 or 2 or 3"):
            evaluate_run(run, views=6)
    said = {one["key"]: one["probability"] for one in result["predictions"]}
    for row, key in enumerate(clips.keys(test)):
        assert said[key] == pytest.approx(probabilities[row].max(), abs=1e-5)


def test_stored_clips_and_their_views_are_averaged_together(tmp_path: Path):
    clips = make_shards(tmp_path / "shards", shape=(8, 20, 24, 3), views=2)
    run = make_run(tmp_path / "run", clips)
    result = evaluate_run(run, views=4)
    test = splits.make_split(clips, "grouped").test
    assert (result["clips"], result["videos"]) == (12, 6)
    videos = clips.index["video"][test]
    probabilities = _views_by_hand(run, clips, test, 2)
    said = {one["key"]: one["probability"] for one in result["predictions"]}
    for video in np.unique(videos):
        of_video = probabilities[videos == video].mean(0)
        key = min(clips.keys(test[videos == video]))
        assert said[key] == pytest.approx(of_video.max(), abs=1e-5)
    with pytest.raises(evaluate.EvaluationError, match=r"--views 3 .* give 1 or 2 or 4, or build"):
        evaluate_run(run, views=3)


def test_windows_of_stored_frames_want_clips_of_as_many_as_in_training(tmp_path: Path):
    clips = [make_shards(tmp_path / f"{n}", shape=(n, 20, 24, 3)) for n in (8, 10)]
    even, window = (
        make_run(tmp_path / f"run{stride}", clips[0], frame_stride=stride) for stride in (None, "1")
    )
    evaluate_run(even, shards=tmp_path / "10")
    with pytest.raises(evaluate.EvaluationError, match=r"has clips of 10 frames .* trained on 8"):
        evaluate_run(window, shards=tmp_path / "10")


def test_more_views_than_stored_is_an_error(run: Path):
    with pytest.raises(evaluate.EvaluationError, match=r"--views 2 .* holds up to 1 clips"):
        evaluate_run(run, views=2)


def test_another_split_needs_to_be_asked_for_and_its_leak_is_the_runs(run: Path, clips: Manifest):
    with pytest.raises(evaluate.EvaluationError, match=r"--allow-other-split\.$"):
        evaluate_run(run, split="paper")
    result = evaluate_run(run, split="paper", allow_other_split=True)
    assert result["split"]["name"] == "paper"
    trained = {clips.index["group"][i] for i in splits.make_split(clips, "grouped").train.tolist()}
    asked = splits.make_split(clips, "paper").test
    mates = [clips.index["group"][i] in trained for i in asked.tolist()]
    assert result["split"]["leak"] == pytest.approx(np.mean(mates))
    assert result["split"]["leak"] != splits.make_split(clips, "paper").leak


def test_leak_of_the_train_side_is_one(run: Path):
    assert evaluate_run(run, subset="train")["split"]["leak"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("A", "B")}, "has 2 classes .* trained on 3"),
        ({"classes": ("Punch", "Wave", "Zoo")}, "trained on 3"),
        ({"shape": (2, 20, 24, 3)}, "clips of 2 frames and the run was trained on 4"),
        ({"shape": (4, 24, 24, 3)}, "of 24x24 and the run was trained on frames of 20x24"),
        ({"rule": "uniform"}, "rule 'uniform' and the run was trained on 'paper'"),
        ({"fit": "pad"}, "the rule '--fit pad' and the run was trained on '--fit squeeze'"),
    ],
)
def test_foreign_shards_are_refused_in_one_sentence(
    tmp_path: Path, run: Path, change: dict, message: str
):
    other = make_shards(tmp_path / "other", **change)
    with pytest.raises(evaluate.EvaluationError, match=message) as error:
        evaluate_run(run, shards=other.root)
    assert "--shards" in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in run.iterdir()] == ["best.pt"]


def test_shards_with_other_videos_have_an_unknown_leak(tmp_path: Path, run: Path):
    other = make_shards(tmp_path / "other", groups=7)
    message = "not the split the run was trained on.*give the shards of the run with --shards"
    with pytest.raises(evaluate.EvaluationError, match=message):
        evaluate_run(run, shards=other.root)
    result = evaluate_run(run, shards=other.root, allow_other_split=True)
    assert result["split"]["leak"] is None


def test_a_run_is_told_what_became_of_its_set(run: Path, clips: Manifest):
    assert "set_changes" not in evaluate_run(run)
    (test_clip,) = clips.keys(splits.make_split(clips, "grouped").test[:1])
    relabel_clips(clips.root, [{"key": test_clip, "split": "val"}])
    result = evaluate_run(run)
    assert result["set_changes"] == "1 clip relabelled"
    assert "not as the run was trained on: 1 clip relabelled" in describe_evaluation(result)
    remove_clips(clips.root, [test_clip])
    with pytest.raises(
        evaluate.EvaluationError, match="1 clip removed, 1 clip relabelled"
    ) as error:
        evaluate_run(run)
    assert "give the set as it was with --shards" in str(error.value)
    relabel_clips(clips.root, [{"key": "*_c01", "label": "Zoo"}])
    with pytest.raises(evaluate.EvaluationError, match=r"has 4 classes .*since the run began: 1 "):
        evaluate_run(run)


def test_a_side_without_clips_is_an_error(clips: Manifest):
    split = replace(splits.make_split(clips, "grouped"), test=np.array([], np.int64))
    with pytest.raises(evaluate.EvaluationError, match="no test clip"):
        evaluate._choose_clips(clips, split, "test", 1, 4)


def test_a_folder_without_checkpoint_is_an_error(tmp_path: Path):
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint"):
        evaluate_run(tmp_path)


def test_the_leak_stands_beside_every_accuracy(run: Path):
    lines = describe_evaluation(evaluate_run(run)).splitlines()
    names = ("video@1", "clip@1", "mean class accuracy", "mAP")
    accuracies = [line for line in lines if line.strip().startswith(names)]
    assert len(accuracies) == 4
    assert all("leak 0.0%" in line for line in accuracies)
    assert leak_text(None) == "leak unknown"


def test_most_confused_pairs_are_the_largest_off_the_diagonal():
    labels = np.array([0, 0, 0, 1, 2])
    said = np.array([1, 1, 2, 1, 0])
    found = Predictions(
        np.arange(5), np.eye(3, dtype=np.float32)[said], labels, np.zeros(5, np.float32)
    )
    keys = [f"k{n}" for n in range(5)]
    kept = list_probabilities(found, videos=np.arange(5), keys=keys, classes=CLASSES)
    assert summarize(kept, 0.0)["confused"] == [
        {"true": "Punch", "predicted": "Wave", "count": 2},
        {"true": "Punch", "predicted": "YoYo", "count": 1},
        {"true": "YoYo", "predicted": "Punch", "count": 1},
    ]


def test_examples_are_the_surest_of_different_classes_and_the_surest_mistakes():
    columns = ("key", "true", "predicted", "probability")
    answers = ("a", "X", "X", 0.9), ("b", "X", "X", 0.8), ("c", "Y", "Y", 0.7)
    mistakes = ("d", "X", "Y", 0.6), ("e", "Y", "X", 0.95)
    rows = [dict(zip(columns, row, strict=True)) for row in (*answers, *mistakes)]
    assert [row["key"] for row in choose_examples(rows)] == ["a", "c", "e", "d"]
