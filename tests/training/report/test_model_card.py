"""MODEL_CARD.md: every figure is the run's, and the limits follow from the figures."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_runs import MARKED_UP, MARKED_UP_ESCAPED, make

from har.training.cli.results import report_main
from har.training.report import write_model_card
from har.training.report.model_card import CARD_NAME

pytestmark = pytest.mark.usefixtures("unrendered")

NAMES = ["ApplyEyeMakeup", *(f"C{n}" for n in range(99)), "YoYo"]
LEAKY = {"name": "paper", "digest": "ffff0000ffff0000", "seed": 0, "leak": 0.983}


def _flat(path: Path) -> str:
    return " ".join(path.read_text().split())


def test_the_card_has_the_figures_of_eval_json_with_interval_split_and_leak(tmp_path: Path):
    run = make(tmp_path / "r3d", "r3d")
    result = json.loads((run / "eval.json").read_text())
    text = write_model_card(run).read_text()
    low, high = result["interval"]
    assert f"| Video@1 | {result['video@1']:.4f}, 95 % interval {low:.4f} to {high:.4f} |" in text
    assert f"| Loss | {result['loss']:.4f} |" in text
    assert "Split `grouped` (abcd1234abcd1234), leak 0.0%" in text
    assert "33,000,004 parameters" in text
    assert re.findall(r"^## (.+)$", text, re.M) == [
        "Data", "Split and leak", "Protocol", "Figures", "Limits", "Licence of the data", "Use",
    ]  # fmt: skip


def test_a_leak_few_videos_and_another_data_set_are_said_as_limits(tmp_path: Path):
    text = _flat(write_model_card(make(tmp_path / "a", "convlstm", split=LEAKY)))
    assert "98.3% of the test clips have a clip of the same long video in train" in text
    assert "Only 60 test videos" in text
    assert "3 classes, not UCF101's 101" in text
    clean = _flat(write_model_card(make(tmp_path / "b", "convlstm", classes=NAMES)))
    assert "same long video in train, so" not in clean
    assert "Only" not in clean
    assert "All 101 classes of UCF101." in clean
    other = _flat(write_model_card(make(tmp_path / "c", "convlstm", classes=["Run", *NAMES[1:]])))
    assert "101 classes, not UCF101's 101" in other


def test_all_right_in_few_videos_is_not_known_to_be_certain(tmp_path: Path):
    text = _flat(write_model_card(make(tmp_path / "a", "r3d", right=1.0)))
    assert "the accuracy is known to lie between 0.94 and 1.00, no closer" in text
    assert "Interval: Wilson's score interval over videos." in text


def test_the_card_shows_names_as_they_are(tmp_path: Path):
    split = {**LEAKY, "name": "`s`"}
    run = make(
        tmp_path / "a", "r3d", classes=[MARKED_UP, "hand_stand", "_a_"], right=0, split=split
    )
    text = _flat(write_model_card(run))
    assert f"Classes: {MARKED_UP_ESCAPED}, hand_stand, \\_a\\_." in text
    for sentence in ("Hardest classes: ", "Most frequent mistakes: "):
        assert MARKED_UP_ESCAPED in text.partition(sentence)[2].partition(". ")[0]
    assert "Split `` `s` `` (" in text
    assert "| class_weights | balanced |" in _flat(
        write_model_card(make(tmp_path / "b", "r3d", class_weights="balanced"))
    )


def test_a_class_that_is_always_right_is_not_hard(tmp_path: Path):
    assert "Hardest classes" not in _flat(write_model_card(make(tmp_path / "a", "r3d", right=1.0)))
    assert "Hardest classes: " in _flat(write_model_card(make(tmp_path / "b", "r3d", right=0.5)))


def test_kinetics_weights_bring_their_own_terms(tmp_path: Path):
    assert "Kinetics" not in _flat(write_model_card(make(tmp_path / "a", "r3d")))
    started = make(tmp_path / "b", "r3d", weights="kinetics400")
    assert "trained on Kinetics-400" in _flat(write_model_card(started))


def test_har_report_writes_the_cards_where_asked(tmp_path: Path):
    run = make(tmp_path / "r3d", "r3d")
    given = [str(run), "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(report_main, given).exit_code == 0
    assert not (run / CARD_NAME).exists()
    result = CliRunner().invoke(report_main, [*given, "--cards"])
    assert result.exit_code == 0
    assert f"card: {run / CARD_NAME}" in result.output
    assert (run / CARD_NAME).is_file()
