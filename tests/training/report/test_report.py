"""The report on made-up runs: what is refused, and what its two pages hold."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import MARKED_UP, MARKED_UP_ESCAPED, SPLIT, change_json, make, read_csv
from PIL import Image

from har import models
from har.training.report import ReportError, write_model_card, write_report
from har.training.report.render import png_size
from har.training.runtime import checkpoint
from har.training.runtime.run_dir import RunError

pytestmark = pytest.mark.usefixtures("unrendered")

OTHER_SPLIT = {"name": "paper", "digest": "ffff0000ffff0000", "seed": 0, "leak": 0.983}


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("metrics.jsonl", None, "no epoch of it has ended"), ("summary.json", None, "has not ended"),
     ("metrics.jsonl", "[]", r"metrics\.jsonl cannot be read .*: run 'har-train --resume "),
     ("summary.json", "{}", r"summary\.json cannot be read .*: run 'har-train --resume "),
     ("environment.json", "null", r"environment\.json cannot be read .*: run 'har-train --resume "),
     ("eval.json", "{}", r"eval\.json cannot be read .*: run 'har-eval .*/run', which writes"),
     ("config.toml", None, r"cannot be read .*: run 'har-train --resume .*/run', which writes it"),
     ("eval.json", '{"a": ', r"eval\.json cannot be read .*: run 'har-eval .*/run', which writes"),
     ("eval.json", None, r"run 'har-eval .*run' first\.$")],
)  # fmt: skip
def test_a_folder_that_is_no_finished_evaluated_run_is_named(
    tmp_path: Path, name: str, text: str | None, message: str
):
    run = make(tmp_path / "run", "r3d")
    if text is None:
        (run / name).unlink()
    else:
        (run / name).write_text(text)
    with pytest.raises((ReportError, RunError), match=message):
        write_report([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_examples_that_are_no_picture_are_named(tmp_path: Path):
    run = make(tmp_path / "run", "r3d")
    (run / "examples.png").write_bytes(b"")
    with pytest.raises(
        ReportError, match=r"examples\.png cannot be read .*: run 'har-eval .*/run'"
    ):
        write_report([run], tmp_path / "out")


def test_a_run_without_test_and_val_clips_has_nothing_to_report_on(tmp_path: Path):
    split = {**SPLIT, "clips": {"train": 60, "val": 0, "test": 0}}
    run = make(tmp_path / "run", "r3d", split=split)
    with pytest.raises(ReportError, match="neither test nor val clips to report on: leave it out"):
        write_report([run], tmp_path / "out")


def test_a_folder_of_runs_is_refused_with_their_names(tmp_path: Path):
    runs = [make(tmp_path / name, "r3d") for name in ("a", "b", "c")]
    with pytest.raises(ReportError, match=rf"har-train wrote, as {runs[0]} {runs[1]}\.$"):
        write_report([tmp_path], tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"epoch": 1}, r"of epoch 1 and the best is .* again\.$"),
     ({"split": OTHER_SPLIT}, r"was trained on split grouped .* evaluated on paper")],
)  # fmt: skip
def test_an_evaluation_of_another_epoch_or_split_is_refused(tmp_path: Path, changes, message: str):
    run = make(tmp_path / "run", "r3d")
    change_json(run / "eval.json", **changes)
    with pytest.raises(ReportError, match=message):
        write_report([run], tmp_path / "out")


@pytest.mark.parametrize("change", [{"split": OTHER_SPLIT}, {"classes": ["a", "b"]}])
def test_other_splits_or_data_are_never_compared_silently(tmp_path: Path, change: dict):
    runs = [make(tmp_path / "a", "r3d"), make(tmp_path / "b", "convlstm", **change)]
    with pytest.raises(ReportError, match=r"not comparable.*add --allow-mixed\.$"):
        write_report(runs, tmp_path / "out")
    text = write_report(runs, tmp_path / "out", allow_mixed=True).read_text()
    labels = [row["Model"] for row in read_csv(tmp_path / "out" / "table1.csv")]
    split = change.get("split", SPLIT)["name"]
    number = len(change.get("classes", "abc"))
    assert labels == ["R3D [grouped, 3 classes]", f"ConvLSTM [{split}, {number} classes]"]
    assert "rows do not compare" in text
    assert "Not judged" in text


def test_another_number_of_views_is_refused(tmp_path: Path):
    runs = [make(tmp_path / "a", "r3d"), make(tmp_path / "b", "convlstm")]
    change_json(runs[1] / "eval.json", views=10)
    with pytest.raises(ReportError, match=r"number of views \(10 and 1\)"):
        write_report(runs, tmp_path / "out")


def test_what_cannot_be_a_report_is_refused(tmp_path: Path):
    run, picture = make(tmp_path / "a", "r3d"), tmp_path / "x.png"
    picture.write_text("hello")
    with pytest.raises(ReportError, match="given twice"):
        write_report([run, tmp_path / "." / "a"], tmp_path / "out")
    with pytest.raises(ReportError, match="no run"):
        write_report([], tmp_path / "out")
    with pytest.raises(ReportError, match="is a file: give a folder"):
        write_report([run], picture)
    with pytest.raises(ReportError, match="not a PNG"):
        write_report([run], tmp_path / "out", contact_sheet=picture)


# ------------------------------------------------------------------ the pages


class Page(HTMLParser):
    """The elements of a page: tags with their attributes, and the rows of all its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.rstrip("\n")

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def test_markdown_links_every_picture_and_table_of_the_report(four: tuple[list[Path], Path]):
    out = four[1]
    text = (out / "report.md").read_text()
    linked = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert set(linked) == {path.name for path in out.glob("*.png")}
    numbered = {name[:5] for name in linked if name.startswith("fig")}
    assert numbered == {f"fig{n:02d}" for n in (*range(6, 16),)}
    for row in read_csv(out / "table1.csv"):
        assert f"| {' | '.join(row.values())} |" in text
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert re.search(rf"^## {anchor.replace('-', '[- ]')}$", text, re.M | re.I)


def test_html_has_the_same_tables_and_pictures_inside(four: tuple[list[Path], Path]):
    out = four[1]
    page = Page((out / "report.html").read_text())
    for row in (*read_csv(out / "table1.csv"), *read_csv(out / "table1_over_epochs.csv")):
        assert list(row) in page.rows
        assert list(row.values()) in page.rows
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    inside = [base64.b64decode(image["src"].split(",", 1)[1]) for image in images]
    assert set(inside) == {path.read_bytes() for path in out.glob("*.png")}
    for image, data in zip(images, inside, strict=True):
        assert len(image["alt"]) > 20
        with Image.open(io.BytesIO(data)) as picture:
            half = (str(picture.width // 2), str(picture.height // 2))
        assert (image["width"], image["height"]) == half


def test_html_needs_no_network_and_no_script(four: tuple[list[Path], Path]):
    text = (four[1] / "report.html").read_text()
    page = Page(text)
    assert "script" not in dict(page.elements)
    assert {link[1:] for link in page.attributes("href")} <= set(page.attributes("id"))
    without_data = re.sub(r'src="data:image/png;base64,[^"]*"', "", text)
    assert not re.search(r"https?:|src=|url\(|@import", without_data)
    assert "default-src 'none'" in text


def test_split_and_leak_stand_with_every_table_of_accuracies(tmp_path: Path):
    text = write_report(
        [make(tmp_path / "a", "r3d", split=OTHER_SPLIT)], tmp_path / "out"
    ).read_text()
    captions = re.findall(r"^\*(?:At the best|Best over all|What these runs say).*$", text, re.M)
    assert len(captions) == 3
    assert all("paper (ffff0000ffff0000), leak 98.3%" in caption for caption in captions)


def test_the_papers_figures_never_stand_without_their_data_set(four: tuple[list[Path], Path]):
    text = (four[1] / "report.md").read_text()
    after = text[text.index("The paper's own Table 1") :]
    assert "UCF101" in after.splitlines()[0]
    assert "not comparable" in after[:1200]


def test_table1_says_what_its_train_figures_are_of(tmp_path: Path):
    plain = make(tmp_path / "plain", "r3d")
    mixed = make(tmp_path / "mixed", "r2plus1d", mixup_alpha=0.2, eval_train=False)
    old = make(tmp_path / "old", "resnet3d", cutmix_alpha=0.2)
    measured = make(tmp_path / "measured", "convlstm", mixup_alpha=0.2, eval_train=True)
    change_json(measured / "summary.json", best_train_loss=0.125, best_train_acc=0.875)
    text = write_report([plain, mixed, old, measured], tmp_path / "out").read_text()
    first, _, second = text.partition("Over all epochs and in the curves: ")
    first = first.rpartition("At the best checkpoint: ")[2]
    assert "of clips as they were trained on (R3D); " in first
    assert "the share of the predicted class in them (R2Plus1D); " in first
    assert "against one of the two labels (a run of an earlier version) (ResNet3D); " in first
    assert "of the best checkpoint on the train clips, not augmented (ConvLSTM)." in first
    assert "the share of the predicted class in them (R2Plus1D; ConvLSTM); " in second
    row = read_csv(tmp_path / "out" / "table1.csv")[-1]
    assert (row["Model"], row["Train Loss"], row["Train Acc"]) == ("ConvLSTM", "0.1250", "0.8750")
    test_acc = json.loads((measured / "eval.json").read_text())["video@1"]
    average = (0.875 + float(row["Val Acc"]) + test_acc) / 3
    assert float(row["Avg Acc"]) == pytest.approx(average, abs=1e-4)
    assert read_csv(tmp_path / "out" / "table1_over_epochs.csv")[-1]["Train Acc"] != "0.8750"


@pytest.mark.parametrize(("weights", "count"), [("none", 5), ("kinetics400", 6)])
def test_the_report_notes_random_weights_and_missing_parts_and_has_video5_from_six_classes_on(
    tmp_path: Path, weights: str, count: int
):
    run = make(tmp_path / "r", "r3d", weights=weights, classes=[f"C{n}" for n in range(count)])
    text = write_report([run], tmp_path / "out").read_text()
    assert "fig06-loss-r3d.png" in text
    assert "fig10" not in text  # of one run it would be the same picture again
    assert ("R3D started here from random weights" in text) == (weights == "none")
    change_json(run / "eval.json", **{"video@5": 1.0})  # an earlier version always wrote it
    write_report([run], tmp_path / "out")
    assert ("Video@5" in read_csv(tmp_path / "out" / "test.csv")[0]) == (count == 6)
    assert ("Video@5" in write_model_card(run).read_text()) == (count == 6)
    line = next(line for line in text.splitlines() if line.startswith("Missing here"))
    for word in ("R2Plus1D, ResNet3D, ConvLSTM", "figure 16", "best.pt", "contact sheet",
                 "precision-recall curves of R3D"):  # fmt: skip
        assert word in line


def test_pictures_of_the_run_and_the_contact_sheet_are_shown(tmp_path: Path):
    run, out, sheet = make(tmp_path / "a", "r2plus1d"), tmp_path / "out", tmp_path / "sheet.png"
    state = models.build("r2plus1d", 3, seed=0, width=8).state_dict()
    checkpoint.save({"model_name": "r2plus1d", "model": state}, run / "best.pt")
    for path in (run / "examples.png", sheet):
        Image.new("RGB", (300, 200), "red").save(path)
    assert png_size(sheet) == (300, 200)
    text = write_report([run], out, contact_sheet=sheet).read_text()
    for name in ("fig16-filters-r2plus1d.png", "examples-r2plus1d.png", "contact_sheet.png"):
        assert f"({name})" in text
    assert "(contact_sheet.png)" in write_report([run], out).read_text()  # it lies there already


def test_a_model_of_the_users_own_is_reported_under_names_that_links_take(tmp_path: Path):
    run, out = make(tmp_path / "a", "r3d", with_probabilities=True), tmp_path / "out"
    for name in ("summary.json", "eval.json"):
        change_json(run / name, model="mynet:Tiny")
    config = (run / "config.toml").read_text().replace('"r3d"', '"mynet:Tiny"')
    (run / "config.toml").write_text(config)
    text = write_report([run], out).read_text()
    linked = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert {"loss-mynet-Tiny.png", "confusion-mynet-Tiny.png"} <= set(linked)
    assert set(linked) == {path.name for path in out.glob("*.png")}
    assert not any(":" in name for name in linked)


def test_class_names_cannot_break_out_of_the_page(tmp_path: Path):
    run = make(tmp_path / "a", "r3d", classes=["<script>alert(1)</script>", "a|b", "c"], right=0.0)
    text = write_report([run], tmp_path / "out").read_text()
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "script" not in dict(page.elements)
    assert any("<script>alert(1)</script>" in row for row in page.rows)
    table = next(line for line in text.splitlines() if "a\\|b" in line)
    assert len(re.findall(r"(?<!\\)\|", table)) == 5


def test_names_are_shown_as_they_are_in_both_pages(tmp_path: Path):
    run = make(tmp_path / "a", "r3d", classes=[MARKED_UP, "hand_stand", "прыжок_1"], right=0.0)
    text = write_report([run], tmp_path / "out").read_text()
    page = Page((tmp_path / "out" / "report.html").read_text())
    cells = [cell for row in page.rows for cell in row]
    assert {MARKED_UP, "hand_stand", "прыжок_1"} <= set(cells)
    names = f"{re.escape(MARKED_UP_ESCAPED)}|hand_stand|прыжок_1"
    assert len(re.findall(rf"^\| R3D \| (?:{names}) \| (?:{names}) \| \d+ \|$", text, re.M)) == 5
    alt = rf"most often (?:(?:{names}) taken for (?:{names}) \(\d+\)(?:, )?){{3}}\]"
    assert re.search(alt, text)
    assert MARKED_UP not in text
    assert "(run `har-eval` again)" in text
    codes = re.findall("<code>(.+?)</code>", (tmp_path / "out" / "report.html").read_text())
    assert "har-eval" in codes
    assert "a" not in codes


def test_a_class_without_a_test_video_has_no_accuracy_of_zero(tmp_path: Path):
    run = make(tmp_path / "r3d", "r3d")
    rows = json.loads((run / "eval.json").read_text())["per_class"]
    rows[1].update(recall=0.0, support=0)
    change_json(run / "eval.json", per_class=rows)
    text = write_report([run], tmp_path / "out").read_text()
    assert "Without a test video: Wave." in text
    assert "Hardest class Wave" not in text
