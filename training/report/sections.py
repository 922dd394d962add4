"""`har-report`: finished, evaluated runs -> report.md, report.html, CSV tables, PNG and SVG.

Split and leak stand with every table of accuracies, and the paper's own figures never without the
sentence that they are of UCF101.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...atomic import write_atomically
from ..plots import DISPLAY_NAMES, svg_copies
from ..runtime.fold_dir import is_fold_dir
from ..runtime.run_dir import write_json
from . import pictures, tables
from .claims import judge_claims
from .comparison import are_mixed, load_runs
from .document import Block, Section, Table, Text, code
from .ensemble import evaluate_ensemble
from .render import render
from .runs import ReportError, Run

TITLE = "Action recognition: training report"
_TEST_NOTE = (
    "The best checkpoint on the {subset} subset. Interval: Wilson's score interval over "
    "videos. Video@k: the right class is among the k most probable, averaged over the views of a "
    "video. mAP: mean of the classes' average precision. ECE: expected calibration error, 15 bins. "
    "Leak: share of test clips with a clip of the same group in train."
)


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    contact_sheet: Path | None = None,
    allow_mixed: bool = False,
    subset: str | None = None,
    views: int | None = None,
    ensemble: bool = False,
) -> Path:
    """Write the report of the run `folders` into the folder `out`; -> report.md.

    A folder of folds (`har-train --folds`) is one row. subset, views: which evaluation of each run;
    None for test, or val where a run has no test clips, and for the fewest views there are.
    contact_sheet: a PNG to show; else `out`/contact_sheet.png where it is there. ensemble: a row
    for the mean probabilities of all runs, whose views may then differ. Files of an earlier report
    in `out` are replaced.
    Raises ReportError, one sentence, for a run that is not finished or not evaluated, and
    for runs of different classes, shard sets, splits, subsets or views unless `allow_mixed`;
    nothing is written then.
    """
    runs = load_runs(
        folders, allow_mixed=allow_mixed, subset=subset, views=views, any_views=ensemble
    )
    averaged = evaluate_ensemble(runs) if ensemble else None
    if out.exists() and not out.is_dir():
        raise ReportError(f"{out} is a file: give a folder for the report with -o.")
    out.mkdir(parents=True, exist_ok=True)
    with svg_copies():
        sections = _make_sections(runs, out, contact_sheet, averaged)
    context = {"title": TITLE, "lead": _describe_runs(runs), "sections": sections}
    for name in ("report.html", "report.md"):
        write_atomically(out / name, render(f"{name}.j2", **context))
    return out / "report.md"


def _make_sections(
    runs: Sequence[Run], out: Path, contact_sheet: Path | None, ensemble: dict[str, Any] | None
) -> list[Section]:
    """ensemble: of `evaluate_ensemble`."""
    clips = pictures.copy_contact_sheet(out, contact_sheet)
    filters = pictures.draw_filters(out, runs)
    examples = pictures.copy_examples(out, runs)
    missing = _list_missing(runs, len(filters), len(examples), has_sheet=bool(clips))
    sections = [
        Section("Table 1", _make_table1(runs, out)),
        Section("Loss", pictures.draw_curves(out, runs, "loss")),
        Section("Accuracy", pictures.draw_curves(out, runs, "acc")),
        Section("What training took", _make_costs(runs, out)),
        Section(f"The {_name_subsets(runs)} subset in detail", _make_test(runs, out, ensemble)),
        Section("Right and wrong", examples),
        Section("First-layer filters", filters),
        Section("Clips", clips),
        Section("Claims of the paper", _make_claims(runs)),
        Section("The runs", _make_runs(runs, missing)),
    ]
    return [section for section in sections if section.blocks]


def _describe_runs(runs: Sequence[Run]) -> str:
    models = list(dict.fromkeys(run.display_name for run in runs))
    classes = sorted({len(run.classes) for run in runs})
    videos = sorted({run.evaluation["videos"] for run in runs})
    splits = dict.fromkeys(run.split_text for run in runs)
    num_runs = sum(len(run.parts) for run in runs)
    return (
        f"{num_runs} run{'s' * (num_runs > 1)} of {len(models)} "
        f"model{'s' * (len(models) > 1)} ({', '.join(models)}) on "
        f"{' and '.join(map(str, classes))} classes, tested on "
        f"{' and '.join(map(str, videos))} {_name_subsets(runs)} videos. "
        f"Split: {'; '.join(splits)} (leak: share of test clips with a clip of the same group in "
        "train)."
    )


def _split_caption(runs: Sequence[Run]) -> str:
    splits = {run.split_text for run in runs}
    return f"Split: {splits.pop()}." if len(splits) == 1 else "Splits differ: see each row."


def _name_subsets(runs: Sequence[Run]) -> str:
    return " and ".join(dict.fromkeys(str(run.evaluation["on"]) for run in runs))


def _make_warnings(runs: Sequence[Run]) -> list[Block]:
    """What must be known before any accuracy is read."""
    texts = []
    if are_mixed(runs):
        texts.append("Runs of different splits, shard sets, classes or views: rows do not compare.")
    on_val = [run.label for run in runs if run.evaluation["on"] == "val"]
    if on_val:
        texts.append(
            f"{'; '.join(on_val)}: the figures named test are of the val subset, by which the best "
            "checkpoint was chosen, so they are too high."
        )
    for run in runs:
        if run.missing_folds:
            missing = ", ".join(map(str, run.missing_folds))
            advice = "train and evaluate these, too."
            if is_fold_dir(run.folder):
                advice = f"'har-train --resume {run.folder}', then har-eval and har-report again."
            texts.append(
                f"{run.label}: not every video was tested, as fold {missing} is missing; {advice}"
            )
    return [Text(text, strong=True) for text in texts]


def _make_table1(runs: Sequence[Run], out: Path) -> list[Block]:
    """Both readings, the seeds, and the paper's own figures."""
    columns, split = tables.TABLE1_COLUMNS, _split_caption(runs)
    best = [tables.best_checkpoint_row(run).cells() for run in runs]
    over_epochs = [tables.best_over_epochs_row(run).cells() for run in runs]
    seeds = tables.seed_rows(runs)
    paper = [row.cells() for row in tables.PAPER_TABLE1]
    tables.write_csv(out / "table1.csv", columns, best)
    tables.write_csv(out / "table1_over_epochs.csv", columns, over_epochs)
    blocks = _make_warnings(runs)
    blocks.append(Table(f"At the best checkpoint (by validation accuracy). {split}", columns, best))
    if seeds:
        tables.write_csv(out / "table1_seeds.csv", columns, seeds)
        caption = f"Runs that differ in the seed alone: mean ± sample deviation. {split}"
        blocks.append(Table(caption, columns, seeds))
    folded = [run for run in runs if run.folds]
    if folded:
        rows = [tables.fold_row(run) for run in folded]
        caption = (
            "Folds: each video is tested once, by the network that was not trained on its fold. "
            "Losses and accuracies of train and val above are means over the folds; Test Acc and "
            f"its interval (Wilson's) are of the videos of all folds together. {split}"
        )
        blocks.append(Table.from_dicts(caption, rows))
        tables.write_csv(out / "folds.csv", list(rows[0]), [list(row.values()) for row in rows])
    caption = (
        "Best over all epochs: lowest loss and highest accuracy, each of its own epoch; "
        f"the test accuracy is the best checkpoint's. {split}"
    )
    blocks.append(Table(caption, columns, over_epochs))
    blocks.append(Text(_describe_train_figures(runs)))
    blocks.append(Table("The paper's own Table 1, on UCF101.", columns, paper))
    blocks.append(Text(_compare_with_paper(runs), strong=True))
    if any(run.model == "r3d" and run.config.get("weights") == "none" for run in runs):
        text = "R3D started here from random weights; the paper's from Kinetics-400's."
        blocks.append(Text(text, strong=True))
    if any(run.config.get("class_weights") == "balanced" for run in runs):
        blocks.append(Text("Losses are unweighted, also where the loss that trained was weighted."))
    return blocks


def _describe_train_figures(runs: Sequence[Run]) -> str:
    """Which runs' train figures are of what, in both readings."""
    readings = {
        "At the best checkpoint": [run.train_measure for run in runs],
        "Over all epochs and in the curves": [run.running_measure for run in runs],
    }
    if len({tuple(measures) for measures in readings.values()}) == 1:
        readings = {"In both tables and in the curves": readings.popitem()[1]}
    sentences = ["What Train Loss and Train Acc are, and so Avg Acc."]
    for reading, measures in readings.items():
        labels: dict[str, list[str]] = {}
        for run, measure in zip(runs, measures, strict=True):
            labels.setdefault(measure, []).append(run.label)
        texts = [f"{measure} ({'; '.join(names)})" for measure, names in labels.items()]
        sentences.append(f"{reading}: {'; '.join(texts if len(texts) > 1 else labels)}.")
    return " ".join(sentences)


def _compare_with_paper(runs: Sequence[Run]) -> str:
    paper = (
        "The paper's figures are of UCF101: 101 classes, one random split of all 13,320 videos, "
        "which puts clips of one group into two subsets (98.3 % of test clips on average over 20 "
        "such splits)."
    )
    if not all(tables.is_ucf101(run.classes) for run in runs):
        return f"{paper} These runs are on other data: the two are not comparable."
    return f"{paper} Compare only runs on UCF101 with the split named paper."


def _make_costs(runs: Sequence[Run], out: Path) -> list[Block]:
    caption = "Clips/s and waiting for data are medians over the epochs."
    if any(run.on_cpu for run in runs):
        caption += " On a CPU the peak memory is that of the whole process."
    table = Table.from_dicts(caption, [tables.cost_row(run) for run in runs])
    tables.write_csv(out / "cost.csv", table.columns, table.rows)
    return [table, pictures.draw_costs(out, runs)]


def _make_test(runs: Sequence[Run], out: Path, ensemble: dict[str, Any] | None) -> list[Block]:
    results = {run.label: run.evaluation for run in runs}
    blocks: list[Block] = []
    if ensemble is not None:
        label = f"Ensemble of {len(runs)} runs"
        results[label] = ensemble
        labels = "; ".join(ensemble["ensemble_of"])
        blocks.append(Text(f"{label}: of the mean of the probabilities of {labels}."))
        write_json(out / "ensemble.json", ensemble)
    text = _TEST_NOTE.format(subset=_name_subsets(runs))
    table = Table.from_dicts(text, tables.test_rows(results))
    tables.write_csv(out / "test.csv", table.columns, table.rows)
    blocks.insert(0, table)
    chosen = pictures.choose_runs(runs)
    mistakes = [
        [run.label, pair["true"], pair["predicted"], str(pair["count"])]
        for run in chosen
        for pair in run.evaluation["confused"][:5]
    ]
    if mistakes:
        caption = f"The most frequent mistakes, up to five a model. {_split_caption(chosen)}"
        columns = ("Model", "True class", "Predicted as", "Videos")
        blocks.append(Table(caption, columns, mistakes))
    curves = pictures.draw_precision_recall(out, runs)
    return [*blocks, *pictures.draw_class_results(out, runs), *curves]


def _make_claims(runs: Sequence[Run]) -> list[Block]:
    if are_mixed(runs):
        text = "Not judged: the runs are of different splits, shard sets, classes or views."
        return [Text(text)]
    caption = f"What these runs say about the paper's claims. {_split_caption(runs)}"
    note = (
        "A claim is judged by runs that differ in what it is about and in nothing else. "
        "A difference in accuracy counts where the intervals do not overlap, which is stricter "
        "than a test at the 5 % level, so that small sets are often inconclusive; a difference in "
        "cost where both were measured with the same device, batch size, frames and size."
    )
    return [
        Table(caption, ("Claim", "Where", "These runs", "Figures"), judge_claims(runs)),
        Text(note),
    ]


def _make_runs(runs: Sequence[Run], missing: Sequence[str]) -> list[Block]:
    """Where each row comes from, and what the report lacks."""
    rows = [
        {
            "Model": run.label,
            "Run": code(str(part.folder)),
            "Evaluation": code(str(part.evaluation_path.relative_to(part.folder))),
            "Seed": str(part.config.get("seed", "unknown")),
            "Device": str(part.environment.get("device", "unknown")),
            "torch": str(part.environment.get("versions", {}).get("torch", "unknown")),
            "Commit": str(part.environment.get("commit") or "unknown")[:10],
            "Command": code(_format_command(part)),
        }
        for run in runs
        for part in run.parts
    ]
    text = f"Missing here: {'; '.join(missing)}." if missing else "Nothing is missing."
    return [Table.from_dicts("What each row comes from.", rows), Text(text)]


def _format_command(run: Run) -> str:
    """The command line without the folder of the program."""
    command = run.environment.get("command", "unknown")
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    return " ".join([Path(words[0]).name, *words[1:]]) if words else "unknown"


def _list_missing(
    runs: Sequence[Run], num_filters: int, num_examples: int, *, has_sheet: bool
) -> list[str]:
    """What a full report would show and this one does not."""
    models = {run.model for run in runs}
    old = [run.label for run in pictures.choose_runs(runs) if not run.has_probabilities]
    again = f"(run {code('har-eval')} again)"
    absent = [name for model, name in DISPLAY_NAMES.items() if model not in models]
    missing = {
        f"runs of {', '.join(absent)}": absent,
        "figure 16 (needs a run of R2Plus1D)": "r2plus1d" not in models,
        "first-layer filters of runs without best.pt": num_filters < len(models),
        f"precision-recall curves of {', '.join(old)} {again}": old,
        f"examples of runs without examples.png {again}": num_examples < len(models),
        f"a contact sheet ({code('har-shards preview')} draws one; pass "
        f"{code('--contact-sheet')})": not has_sheet,
    }
    return [text for text, is_missing in missing.items() if is_missing]
