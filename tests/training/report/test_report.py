"""The report on made-up runs: every number of its tables is recomputed, its pages are parsed."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import statistics
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium
from made_runs import SPEEDS, SPLIT, make
from PIL import Image

from har.training.plots import style
from har.training.report import ReportError, claims, format_duration, load_runs, write_report
from har.training.report.document import Table
from har.training.report.render import png_size
from har.training.report.tables import PAPER_TABLE1

PAPER = """\
R3D	0.1918	0.9608	0.3018	0.8788	0.8652	0.9016
R2Plus1D	0.2589	0.9248	0.4195	0.8422	0.8256	0.8642
ResNet3D	0.2418	0.8377	0.5218	0.7805	0.7621	0.7934
ConvLSTM	0.5103	0.7483	0.6192	0.6601	0.6482	0.6855
"""  # table 1 of the paper
HEADER = ["Model", "Train Loss", "Train Acc", "Val Loss", "Val Acc", "Test Acc", "Avg Acc"]
OTHER = {"name": "paper", "digest": "ffff0000ffff0000", "seed": 0, "leak": 0.983}


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing at 200 dpi is most of the time of these tests, and none of their matter."""
    monkeypatch.setattr(style, "DPI", 40)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Four runs, one of each model, and the folder of their report."""
    root = tmp_path_factory.mktemp("four")
    runs = [make(root / model, model) for model in ("convlstm", "r3d", "resnet3d", "r2plus1d")]
    write_report(runs, root / "out")
    return runs, root / "out"


def _read(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def _by_hand(folder: Path) -> tuple[list[dict], dict, float]:
    """metrics.jsonl, the line with the highest validation accuracy, and right / all videos."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().split("\n")[:-1]]
    best = sorted(lines, key=lambda line: line["val_acc"])[-1]
    said = json.loads((folder / "eval.json").read_text())["predictions"]
    return lines, best, sum(one["true"] == one["predicted"] for one in said) / len(said)


def test_table1_has_the_papers_columns_and_order(four: tuple[list[Path], Path]):
    table = _read(four[1] / "table1.csv")
    assert table[0] == HEADER
    assert [row[0] for row in table[1:]] == ["R3D", "R2Plus1D", "ResNet3D", "ConvLSTM"]


def test_table1_is_the_epoch_with_the_best_validation_accuracy(four: tuple[list[Path], Path]):
    runs, out = four
    rows = {row[0].lower(): row[1:] for row in _read(out / "table1.csv")[1:]}
    for folder in runs:
        _, best, test = _by_hand(folder)
        average = (best["train_acc"] + best["val_acc"] + test) / 3
        numbers = [best[k] for k in ("train_loss", "train_acc", "val_loss", "val_acc")]
        assert rows[folder.name] == [f"{n:.4f}" for n in (*numbers, test, average)]


def test_the_other_reading_takes_each_figure_from_its_own_epoch(four: tuple[list[Path], Path]):
    runs, out = four
    rows = {row[0].lower(): row[1:] for row in _read(out / "table1_over_epochs.csv")[1:]}
    for folder in runs:
        lines, _, test = _by_hand(folder)
        train, val = (max(line[k] for line in lines) for k in ("train_acc", "val_acc"))
        losses = [min(line[k] for line in lines) for k in ("train_loss", "val_loss")]
        numbers = [losses[0], train, losses[1], val, test, (train + val + test) / 3]
        assert rows[folder.name] == [f"{n:.4f}" for n in numbers]


def test_the_papers_own_table_is_the_papers():
    rows = [line.split("\t") for line in PAPER.splitlines()]
    assert [row.cells() for row in PAPER_TABLE1] == rows


@pytest.mark.parametrize(("count", "is_said"), [(5, True), (6, False)])
def test_video_at_5_of_five_classes_is_said_to_say_nothing(
    tmp_path: Path, count: int, is_said: bool
):
    run = make(tmp_path / "r", "r3d", classes=[f"C{n}" for n in range(count)])
    write_report([run], tmp_path / "out")
    assert ("Video@5 says nothing here" in (tmp_path / "out" / "report.md").read_text()) == is_said


def test_test_table_recomputes_from_the_predictions(four: tuple[list[Path], Path]):
    runs, out = four
    table = _read(out / "test.csv")
    rows = {row[0].lower(): dict(zip(table[0], row, strict=True)) for row in table[1:]}
    for folder in runs:
        said = json.loads((folder / "eval.json").read_text())["predictions"]
        classes = sorted({one["true"] for one in said})
        recalls = [
            statistics.mean(one["predicted"] == c for one in said if one["true"] == c)
            for c in classes
        ]
        row = rows[folder.name]
        assert row["Mean class acc"] == f"{statistics.mean(recalls):.4f}"
        low, high = map(float, row["95 % interval"].split(" to "))
        assert low <= float(row["Video@1"]) <= high
        assert (row["Split"], row["Leak"]) == ("grouped", "0.0%")


def test_cost_table_has_medians_and_peaks(four: tuple[list[Path], Path]):
    runs, out = four
    table = _read(out / "cost.csv")
    rows = {row[0].lower(): dict(zip(table[0], row, strict=True)) for row in table[1:]}
    for folder in runs:
        lines, best, _ = _by_hand(folder)
        row = rows[folder.name]
        assert row["Clips/s"] == f"{statistics.median(line['clips_per_s'] for line in lines):.1f}"
        assert row["Peak memory"] == f"{SPEEDS[folder.name]:.2f} GiB"
        assert row["Time"] == f"{SPEEDS[folder.name]:.1f} min"
        assert (row["Epochs"], row["Best epoch"]) == (str(len(lines)), str(best["epoch"]))
        assert row["Multiply-adds a clip"] == "40.70 G"


def test_seeds_of_one_model_are_given_as_mean_and_sample_deviation(tmp_path: Path):
    runs = [make(tmp_path / f"s{seed}", "r3d", seed=seed) for seed in range(3)]
    out = tmp_path / "out"
    write_report(runs, out)
    rows = _read(out / "table1.csv")[1:]
    assert [row[0] for row in rows] == ["R3D, seed 0", "R3D, seed 1", "R3D, seed 2"]
    header, line = _read(out / "table1_seeds.csv")
    assert header == HEADER
    assert line[0] == "R3D (3 runs)"
    for column, cell in enumerate(line[1:]):
        best = [_by_hand(run)[1:] for run in runs]
        key = ("train_loss", "train_acc", "val_loss", "val_acc")
        values = {
            4: [test for _, test in best],
            5: [(b["train_acc"] + b["val_acc"] + test) / 3 for b, test in best],
        }.get(column) or [b[key[column]] for b, _ in best]
        assert cell == f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def test_two_runs_of_one_model_and_seed_are_named_by_folder(tmp_path: Path):
    runs = load_runs([make(tmp_path / name, "r3d") for name in ("a", "b")])
    assert [run.label for run in runs] == ["R3D, seed 0, a", "R3D, seed 0, b"]


# ------------------------------------------------------------------ what is refused


def test_a_run_without_evaluation_says_what_to_run(tmp_path: Path):
    run = make(tmp_path / "run", "r3d")
    (run / "eval.json").unlink()
    with pytest.raises(ReportError, match=re.escape(f"run 'har-eval {run}' first.")):
        write_report([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [("metrics.jsonl", "is not a run"), ("summary.json", "has not ended"),
     ("config.toml", "cannot be read")],
)  # fmt: skip
def test_a_folder_that_is_no_finished_run_is_named(tmp_path: Path, missing: str, message: str):
    run = make(tmp_path / "run", "r3d")
    (run / missing).unlink()
    with pytest.raises(ReportError, match=message):
        write_report([run], tmp_path / "out")


def test_damaged_json_names_the_file(tmp_path: Path):
    run = make(tmp_path / "run", "r3d")
    (run / "eval.json").write_text('{"video@1": ')
    with pytest.raises(ReportError, match=r"eval\.json cannot be read"):
        write_report([run], tmp_path / "out")


def test_an_evaluation_of_another_epoch_is_stale(tmp_path: Path):
    run = make(tmp_path / "run", "r3d")
    _change(run / "eval.json", epoch=1)
    with pytest.raises(ReportError, match=r"of epoch 1 and the best is .* again\.$"):
        write_report([run], tmp_path / "out")


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("change", [{"split": OTHER}, {"classes": ["a", "b"]}])
def test_other_splits_or_data_are_never_compared_silently(tmp_path: Path, change: dict):
    runs = [make(tmp_path / "a", "r3d"), make(tmp_path / "b", "convlstm", **change)]
    with pytest.raises(ReportError, match=r"not comparable.*add --allow-mixed\.$"):
        write_report(runs, tmp_path / "out")
    text = write_report(runs, tmp_path / "out", allow_mixed=True).read_text()
    labels = [row[0] for row in _read(tmp_path / "out" / "table1.csv")[1:]]
    split = change.get("split", SPLIT)["name"]
    number = len(change.get("classes", "abc"))
    assert labels == ["R3D [grouped, 3 classes]", f"ConvLSTM [{split}, {number} classes]"]
    assert "rows do not compare" in text
    assert "Not judged" in text


def test_a_run_evaluated_on_another_split_than_its_own_is_refused(tmp_path: Path):
    run = make(tmp_path / "a", "r3d")
    _change(run / "eval.json", split=OTHER)
    with pytest.raises(ReportError, match=r"was trained on split grouped .* evaluated on paper"):
        write_report([run], tmp_path / "out")
    write_report([run], tmp_path / "out", allow_mixed=True)


def test_another_number_of_views_is_refused(tmp_path: Path):
    runs = [make(tmp_path / "a", "r3d"), make(tmp_path / "b", "convlstm")]
    _change(runs[1] / "eval.json", views=10)
    with pytest.raises(ReportError, match=r"number of views \(10 and 1\)"):
        write_report(runs, tmp_path / "out")


def test_the_same_run_twice_and_no_run_are_refused(tmp_path: Path):
    run = make(tmp_path / "a", "r3d")
    with pytest.raises(ReportError, match="given twice"):
        write_report([run, tmp_path / "." / "a"], tmp_path / "out")
    with pytest.raises(ReportError, match="no run"):
        write_report([], tmp_path / "out")


def test_a_contact_sheet_that_is_no_png_is_refused(tmp_path: Path):
    run = make(tmp_path / "a", "r3d")
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(ReportError, match="not a PNG"):
        write_report([run], tmp_path / "out", contact_sheet=tmp_path / "x.png")


# ------------------------------------------------------------------ the pages


class _Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict] = []
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.images.append(values)
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


def test_markdown_links_every_picture_and_table_of_the_report(four: tuple[list[Path], Path]):
    out = four[1]
    text = (out / "report.md").read_text()
    linked = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert set(linked) == {path.name for path in out.glob("*.png")}
    numbered = {name[:5] for name in linked if name.startswith("fig")}
    assert numbered == {f"fig{n:02d}" for n in (*range(6, 16),)}
    for row in _read(out / "table1.csv"):
        assert f"| {' | '.join(row)} |" in text
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert re.search(rf"^## {anchor.replace('-', '[- ]')}$", text, re.M | re.I)


def test_html_has_the_same_tables_and_pictures_inside(four: tuple[list[Path], Path]):
    out = four[1]
    page = _Page((out / "report.html").read_text())
    for row in (*_read(out / "table1.csv"), *_read(out / "table1_over_epochs.csv")):
        assert row in page.rows
    files = {path.read_bytes() for path in out.glob("*.png")}
    inside = {base64.b64decode(image["src"].split(",", 1)[1]) for image in page.images}
    assert inside == files
    for image in page.images:
        assert len(image["alt"]) > 20
        with Image.open(io.BytesIO(base64.b64decode(image["src"].split(",", 1)[1]))) as picture:
            assert int(image["width"]) == picture.width // 2
            assert int(image["height"]) == picture.height // 2


def test_html_needs_no_network_and_no_script(four: tuple[list[Path], Path]):
    text = (four[1] / "report.html").read_text()
    page = _Page(text)
    assert "script" not in page.tags
    assert all(link.startswith("#") and link[1:] in page.anchors for link in page.links)
    without_data = re.sub(r'src="data:image/png;base64,[^"]*"', "", text)
    assert not re.search(r"https?:|src=|url\(|@import", without_data)
    assert "default-src 'none'" in text


def test_split_and_leak_stand_with_every_table_of_accuracies(tmp_path: Path):
    run = make(tmp_path / "a", "r3d", split=OTHER)
    write_report([run], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    captions = re.findall(r"^\*(At the best|Best over all|What these runs say).*$", text, re.M)
    assert len(captions) == 3
    for line in text.splitlines():
        if re.match(r"\*(At the best|Best over all|What these runs say)", line):
            assert "paper (ffff0000ffff0000), leak 98.3%" in line


def test_the_papers_figures_never_stand_without_their_data_set(four: tuple[list[Path], Path]):
    text = (four[1] / "report.md").read_text()
    after = text[text.index("The paper's own Table 1") :]
    assert "UCF101" in after.splitlines()[0]
    assert "not comparable" in after[:1200]


@pytest.mark.parametrize(("weights", "is_said"), [("none", True), ("kinetics400", False)])
def test_a_table1_with_an_r3d_from_random_weights_says_so(
    tmp_path: Path, weights: str, is_said: bool
):
    write_report([make(tmp_path / "r", "r3d", weights=weights)], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert ("R3D started here from random weights" in text) == is_said


def test_what_is_missing_is_named(tmp_path: Path):
    run = make(tmp_path / "a", "r3d")
    text = write_report([run], tmp_path / "out").read_text()
    line = next(line for line in text.splitlines() if line.startswith("Missing here"))
    for word in ("R2Plus1D, ResNet3D, ConvLSTM", "figure 16", "best.pt", "contact sheet"):
        assert word in line


def test_a_contact_sheet_given_or_lying_there_is_shown(tmp_path: Path):
    run, out = make(tmp_path / "a", "r3d"), tmp_path / "out"
    Image.new("RGB", (300, 200), "red").save(tmp_path / "sheet.png")
    write_report([run], out, contact_sheet=tmp_path / "sheet.png")
    assert "(contact_sheet.png)" in (out / "report.md").read_text()
    write_report([run], out)
    assert "(contact_sheet.png)" in (out / "report.md").read_text()


def test_figure_16_and_examples_are_shown_where_the_run_kept_them(tmp_path: Path):
    from har import models
    from har.training.runtime import checkpoint

    run, out = make(tmp_path / "a", "r2plus1d"), tmp_path / "out"
    state = models.build("r2plus1d", 3, seed=0).state_dict()
    checkpoint.save({"model_name": "r2plus1d", "model": state}, run / "best.pt")
    Image.new("RGB", (300, 200), "red").save(run / "examples.png")
    text = write_report([run], out).read_text()
    assert "(fig16-filters-r2plus1d.png)" in text
    assert "(examples-r2plus1d.png)" in text


def test_class_names_cannot_break_out_of_the_page(tmp_path: Path):
    run = make(tmp_path / "a", "r3d", classes=["<script>alert(1)</script>", "a|b", "c"], right=0.0)
    write_report([run], tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "script" not in _Page(html).tags
    table = next(
        s for s in (tmp_path / "out" / "report.md").read_text().splitlines() if "a\\|b" in s
    )
    assert len(re.findall(r"(?<!\\)\|", table)) == 5


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_renders_in_chromium_without_scrolling_sideways(
    four: tuple[list[Path], Path], tmp_path: Path, width: int
):
    # a frame of the wanted width: headless Chromium has a least window width of its own
    page = four[1].resolve() / "report.html"
    probe = tmp_path / "probe.html"
    inner = page.read_text().replace("default-src 'none'", "default-src 'unsafe-inline'")
    script = (
        "<script>addEventListener('load',()=>parent.postMessage([document.documentElement."
        "scrollWidth,document.documentElement.clientWidth,[...document.images].filter(i=>!i.naturalWidth).length],'*'))"
        "</script>"
    )
    (tmp_path / "inner.html").write_text(inner.replace("</body>", f"{script}</body>"))
    probe.write_text(
        f"<iframe src=inner.html style='width:{width}px;height:900px;border:0'></iframe>"
        "<script>onmessage=e=>document.title=e.data.join()</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000"]
    command = ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [*command, probe.as_uri()], capture_output=True, text=True, timeout=90, check=True
    )
    found = re.search(r"<title>(\d+),(\d+),(\d+)</title>", done.stdout)
    assert found is not None, done.stdout[:500]
    scrolled, inside, broken = map(int, found.groups())
    assert (scrolled, broken) == (inside, 0)
    assert width - 20 <= inside <= width  # less the scroll bar


def test_a_class_without_a_test_video_has_no_accuracy_of_zero(tmp_path: Path):
    run = make(tmp_path / "r3d", "r3d")
    found = json.loads((run / "eval.json").read_text())
    found["per_class"][1].update(recall=0.0, support=0)
    (run / "eval.json").write_text(json.dumps(found))
    write_report([run], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Without a test video: Wave." in text
    assert "Hardest class Wave" not in text


# ------------------------------------------------------------------ document and claims


def test_png_size_is_read_from_the_header(tmp_path: Path):
    Image.new("L", (31, 7)).save(tmp_path / "x.png")
    assert png_size(tmp_path / "x.png") == (31, 7)


def test_columns_of_numbers_are_set_flush_right():
    table = Table("c", ["a", "b", "c"], [["1", "2.5", "x"], ["2", "−1", "3"]])
    assert table.is_numeric == [False, True, False]


@pytest.mark.parametrize(
    ("seconds", "text"), [(41.2, "41 s"), (119.9, "120 s"), (738, "12.3 min"), (16560, "4.6 h")]
)
def test_durations_are_said_in_a_fitting_unit(seconds: float, text: str):
    assert format_duration(seconds) == text


def _verdicts(*folders: Path, allow_mixed: bool = False) -> dict[str, str]:
    judged = claims.judge_claims(load_runs(folders, allow_mixed=allow_mixed))
    words = {
        "ranks": "ranking", "Pretraining": "pretraining", "R(2+1)D trains": "factorised",
        "less training time": "time", "footprint": "memory", "more epochs": "epochs",
        "Class weights": "weights",
    }  # fmt: skip
    return {words[next(w for w in words if w in c.text)]: c.verdict for c in judged}


def test_one_run_tests_hardly_any_claim(tmp_path: Path):
    verdicts = _verdicts(make(tmp_path / "a", "r3d"))
    assert set(verdicts.values()) == {claims.NOT_TESTED}
    assert len(verdicts) == 7


def test_a_ranking_counts_only_where_intervals_do_not_overlap(tmp_path: Path):
    shares = {"r3d": 1.0, "r2plus1d": 0.5, "resnet3d": 0.0, "convlstm": 0.0}
    runs = [make(tmp_path / m, m, right=share) for m, share in shares.items()]
    assert _verdicts(*runs)["ranking"] == f"{claims.SUPPORTED}, in part inconclusive"
    assert _verdicts(*runs[:3])["ranking"] == claims.SUPPORTED
    assert _verdicts(*runs[2:])["ranking"] == claims.INCONCLUSIVE


def test_a_reversed_ranking_contradicts(tmp_path: Path):
    runs = [make(tmp_path / "a", "r3d", right=0.1), make(tmp_path / "b", "convlstm", right=1.0)]
    assert _verdicts(*runs)["ranking"] == claims.CONTRADICTED


def test_pretraining_is_judged_only_where_r3d_was_pretrained(tmp_path: Path):
    other = make(tmp_path / "o", "r2plus1d", right=0.2)
    plain = make(tmp_path / "p", "r3d", right=1.0)
    assert _verdicts(plain, other)["pretraining"] == claims.NOT_TESTED
    much = make(tmp_path / "m", "r3d", right=1.0, weights="kinetics400")
    assert _verdicts(much, other)["pretraining"] == claims.CONTRADICTED
    same = make(tmp_path / "s", "r3d", right=0.2, weights="kinetics400")
    assert _verdicts(same, other)["pretraining"] == claims.INCONCLUSIVE


def test_costs_are_judged_only_where_they_were_measured_alike(tmp_path: Path):
    runs = [make(tmp_path / m, m) for m in SPEEDS]
    verdicts = _verdicts(*runs)
    assert verdicts["time"] == verdicts["memory"] == claims.SUPPORTED
    assert verdicts["factorised"] == claims.MIXED  # fewer clips/s, less memory
    assert verdicts["epochs"] == claims.SUPPORTED
    runs[2] = make(tmp_path / "small", "resnet3d", batch_size=2)
    verdicts = _verdicts(*runs)
    for claim in ("time", "memory", "factorised"):
        assert verdicts[claim] == claims.NOT_TESTED


def test_memory_of_a_cpu_process_judges_no_model(tmp_path: Path):
    runs = [make(tmp_path / m, m, device="cpu (x86_64, 2 threads)") for m in SPEEDS]
    verdicts = _verdicts(*runs)
    assert verdicts["memory"] == claims.NOT_TESTED
    assert verdicts["factorised"] == claims.CONTRADICTED  # by clips/s alone


def test_class_weights_are_judged_on_runs_with_and_without(tmp_path: Path):
    with_ = make(tmp_path / "w", "r3d", right=1.0, class_weights="balanced")
    without = make(tmp_path / "n", "r3d", right=0.3, class_weights="none", seed=1)
    assert _verdicts(with_, without)["weights"] == claims.SUPPORTED
