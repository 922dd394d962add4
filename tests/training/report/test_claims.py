"""Which verdicts follow from which figures."""

from pathlib import Path

from made_runs import SPEEDS, change_json, make

from har.training.report import load_runs
from har.training.report.claims import (
    _NO_PAIR,
    CONTRADICTED,
    INCONCLUSIVE,
    MIXED,
    NOT_TESTED,
    SUPPORTED,
    judge_claims,
)


def verdicts(*folders: Path) -> dict[str, str]:
    names = ("ranking", "pretraining", "factorized", "time", "memory", "epochs", "weights")
    judged = judge_claims(load_runs(folders))
    return {name: claim.verdict for name, claim in zip(names, judged, strict=True)}


def test_one_run_tests_hardly_any_claim(tmp_path: Path):
    assert set(verdicts(make(tmp_path / "a", "r3d")).values()) == {NOT_TESTED}


def test_a_ranking_counts_only_where_intervals_do_not_overlap(tmp_path: Path):
    shares = {"r3d": 1.0, "r2plus1d": 0.5, "resnet3d": 0.0, "convlstm": 0.0}
    runs = [make(tmp_path / m, m, right=share) for m, share in shares.items()]
    assert verdicts(*runs)["ranking"] == f"{SUPPORTED}, in part {INCONCLUSIVE}"
    assert verdicts(*runs[:3])["ranking"] == SUPPORTED
    assert verdicts(*runs[2:])["ranking"] == INCONCLUSIVE


def test_runs_of_earlier_versions_are_not_judged_by_intervals_of_no_width(tmp_path: Path):
    runs = [make(tmp_path / "a", "r3d"), make(tmp_path / "b", "r2plus1d")]
    bootstrap = {48: [1.0, 1.0], 44: [0.8333, 0.9792]}
    for run, (num_right, interval) in zip(runs, bootstrap.items(), strict=True):
        change_json(run / "eval.json", interval=interval, videos=48, **{"video@1": num_right / 48})
    claim = judge_claims(load_runs(runs))[0]
    assert claim.verdict == INCONCLUSIVE
    assert "R3D 1.0000 (0.9259 to 1.0000); R2Plus1D 0.9167 (0.8045 to 0.9671)" in claim.evidence


def test_a_reversed_ranking_contradicts(tmp_path: Path):
    runs = [make(tmp_path / "a", "r3d", right=0.1), make(tmp_path / "b", "convlstm", right=1.0)]
    assert verdicts(*runs)["ranking"] == CONTRADICTED


def test_pretraining_is_judged_only_where_r3d_was_pretrained(tmp_path: Path):
    other = make(tmp_path / "o", "r2plus1d", right=0.2)
    plain = make(tmp_path / "p", "r3d", right=1.0)
    much = make(tmp_path / "m", "r3d", right=1.0, weights="kinetics400")
    same = make(tmp_path / "s", "r3d", right=0.2, weights="kinetics400")
    expected = {plain: NOT_TESTED, much: CONTRADICTED, same: INCONCLUSIVE}  # more than slightly
    assert {run: verdicts(run, other)["pretraining"] for run in expected} == expected


def test_costs_are_judged_only_where_they_were_measured_alike(tmp_path: Path):
    runs = [make(tmp_path / m, m) for m in SPEEDS]
    judged = verdicts(*runs)
    assert judged["time"] == judged["memory"] == judged["epochs"] == SUPPORTED
    assert judged["factorized"] == MIXED  # fewer clips/s, less memory
    runs[2] = make(tmp_path / "small", "resnet3d", batch_size=2)
    judged = verdicts(*runs)
    assert {judged[claim] for claim in ("time", "factorized")} == {NOT_TESTED}
    assert judged["memory"] == SUPPORTED  # by the three that are alike
    judged = verdicts(runs[2], runs[3])
    assert {judged[claim] for claim in ("time", "memory", "factorized")} == {NOT_TESTED}


def test_memory_of_a_cpu_process_judges_no_model(tmp_path: Path):
    runs = [make(tmp_path / m, m, device="cpu (x86_64, 2 threads)") for m in SPEEDS]
    judged = verdicts(*runs)
    assert judged["memory"] == NOT_TESTED
    assert judged["factorized"] == CONTRADICTED  # by clips/s alone


def test_claims_about_models_are_judged_by_runs_of_one_recipe_only(tmp_path: Path):
    other = {"optimizer": "sgd", "lr_scheduler": "cosine"}
    good = make(tmp_path / "r3d", "r3d", right=1.0, lr=1e-3)  # its own rate without weights
    mixed = [good, make(tmp_path / "a", "r2plus1d", right=0.2, **other)]
    claims = judge_claims(load_runs(mixed))
    assert (claims[0].verdict, claims[0].evidence) == (NOT_TESTED, _NO_PAIR)
    paired = [*mixed, make(tmp_path / "b", "r2plus1d", right=1.0)]
    assert verdicts(*paired)["ranking"] == INCONCLUSIVE  # by the pair alone, not by both R2Plus1D
    paired += [make(tmp_path / "c", "r3d", right=0.9, **other)]
    assert verdicts(*paired)["ranking"] == f"{SUPPORTED}, in part {INCONCLUSIVE}"


def test_class_weights_are_judged_by_runs_that_differ_in_nothing_else(tmp_path: Path):
    weighted = make(tmp_path / "w", "r3d", right=1.0, class_weights="balanced")
    modern = {"preset": "modern", "optimizer": "adamw", "mixup_alpha": 0.2}
    plain = make(tmp_path / "n", "r3d", right=0.3, class_weights="none", **modern)
    claim = judge_claims(load_runs([weighted, plain]))[-1]
    assert (claim.verdict, claim.evidence) == (NOT_TESTED, _NO_PAIR)
    assert "Needs runs of one model" in judge_claims(load_runs([weighted]))[-1].evidence


def test_class_weights_are_judged_on_runs_with_and_without(tmp_path: Path):
    weighted = make(tmp_path / "w", "r3d", right=1.0, class_weights="balanced")
    plain = make(tmp_path / "n", "r3d", right=0.3, class_weights="none", seed=1)
    assert verdicts(weighted, plain)["weights"] == SUPPORTED
