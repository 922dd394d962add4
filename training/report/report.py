"""`har-report`: finished, evaluated runs -> report.md, report.html, CSV tables, PNG and SVG.

The order of the page is the order in which a reader asks: what is this, Table 1, the curves, what
it cost, where it fails, what it learned, and what all this says to the paper's claims.

Odd: split and leak stand with every table of accuracies, and the paper's own figures never without
the sentence that they are of UCF101.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...atomic import write_atomically
from ..plots import DISPLAY_NAMES, svg_copies
from . import claims, html, pictures, tables
from .document import Block, Section, Table, Text, markdown
from .runs import ReportError, Run, load_all

__all__ = ["ReportError", "write"]

TITLE = "Action recognition: training report"
UCF101_CLASSES = 101
_TEST_NOTE = (
    "The best checkpoint on the test side. Interval: bootstrap over videos. Video@k: the right "
    "class is among the k most probable, averaged over the views of a video. ECE: expected "
    "calibration error, 15 bins. "
    "Leak: share of test clips with a clip of the same group in train."
)


def write(
    runs: Sequence[Path],
    out: Path,
    *,
    contact_sheet: Path | None = None,
    allow_mixed: bool = False,
) -> Path:
    """Write the report of the run folders `runs` into the folder `out`; -> report.md.

    contact_sheet: a PNG to show; else `out`/contact_sheet.png where it is there. Files of an
    earlier report in `out` are written over. Raises ReportError, one sentence, for a run that is
    not finished or not evaluated, and for runs of different classes, splits or views unless
    `allow_mixed`; nothing is written then.
    """
    found = load_all(runs, allow_mixed=allow_mixed)
    if out.exists() and not out.is_dir():
        raise ReportError(f"{out} is a file: give a folder for the report with -o.")
    out.mkdir(parents=True, exist_ok=True)
    with svg_copies():
        sections = _sections(found, out, contact_sheet)
    lead = _lead(found)
    html.write(out / "report.html", TITLE, lead, sections)
    text = markdown(TITLE, [Section("What this is", [Text(lead)]), *sections])
    write_atomically(out / "report.md", text.encode())
    return out / "report.md"


def _sections(runs: Sequence[Run], out: Path, sheet: Path | None) -> list[Section]:
    clips = pictures.contact_sheet(out, sheet)
    filters = pictures.first_layers(out, runs)
    examples = pictures.examples(out, runs)
    sections = [
        Section("Table 1", _table1(runs, out)),
        Section("Loss", pictures.curves(out, runs, "loss")),
        Section("Accuracy", pictures.curves(out, runs, "acc")),
        Section("What training took", _cost(runs, out)),
        Section("The test side in detail", _test(runs, out)),
        Section("Right and wrong", examples),
        Section("First-layer filters", filters),
        Section("Clips", clips),
        Section("Claims of the paper", _claims(runs)),
        Section("The runs", _runs(runs, _missing(runs, filters, examples, clips))),
    ]
    return [section for section in sections if section.blocks]


def _lead(runs: Sequence[Run]) -> str:
    models = list(dict.fromkeys(run.display for run in runs))
    counts = sorted({len(run.summary["classes"]) for run in runs})
    videos = sorted({run.evaluation["videos"] for run in runs})
    splits = list(dict.fromkeys(run.split_text() for run in runs))
    return (
        f"{_count(len(runs), 'run')} of {_count(len(models), 'model')} ({', '.join(models)}) on "
        f"{_several(counts)} classes, tested on {_several(videos)} videos. "
        f"Split: {'; '.join(splits)} (leak: share of test clips with a clip of the same group in "
        "train)."
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _several(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))


def _held(runs: Sequence[Run]) -> str:
    """Split and leak, for a caption."""
    splits = list(dict.fromkeys(run.split_text() for run in runs))
    return f"Split: {splits[0]}." if len(splits) == 1 else "Splits differ: see each row."


def _table1(runs: Sequence[Run], out: Path) -> list[Block]:
    """Both readings, the seeds, and the paper's own figures."""
    columns, held = tables.COLUMNS, _held(runs)
    best = [tables.at_best(run).cells() for run in runs]
    over = [tables.over_epochs(run).cells() for run in runs]
    paper = [row.cells() for row in tables.PAPER]
    tables.write_csv(out / "table1.csv", columns, best)
    tables.write_csv(out / "table1_over_epochs.csv", columns, over)
    blocks: list[Block] = []
    if len({run.split_text() for run in runs}) > 1 or len({_classes(run) for run in runs}) > 1:
        blocks.append(Text("Runs of different splits or classes: rows do not compare.", True))
    blocks.append(Table(f"At the best checkpoint (by validation accuracy). {held}", columns, best))
    seeds = tables.seeds(runs)
    if seeds:
        tables.write_csv(out / "table1_seeds.csv", columns, seeds)
        caption = f"Several runs of a model: mean ± sample deviation of the rows above. {held}"
        blocks.append(Table(caption, columns, seeds))
    caption = (
        "Best over all epochs: lowest loss and highest accuracy, each of its own epoch; "
        f"the test accuracy is the best checkpoint's. {held}"
    )
    blocks.append(Table(caption, columns, over))
    blocks.append(Table("The paper's own Table 1, on UCF101.", columns, paper))
    blocks.append(Text(_comparable(runs), strong=True))
    if any(run.model == "r3d" and run.config.get("weights") == "none" for run in runs):
        text = "R3D started here from random weights; the paper's from Kinetics-400's."
        blocks.append(Text(text, strong=True))
    if any(run.config.get("class_weights") == "balanced" for run in runs):
        blocks.append(Text("Losses are unweighted, also where the loss that trained was weighted."))
    return blocks


def _classes(run: Run) -> tuple[str, ...]:
    return tuple(run.summary["classes"])


def _comparable(runs: Sequence[Run]) -> str:
    paper = (
        "The paper's figures are of UCF101: 101 classes, one random split of all 13,320 videos, "
        "which puts clips of one group on both sides (98.3 % of test clips on average over 20 such "
        "splits)."
    )
    if any(len(run.summary["classes"]) != UCF101_CLASSES for run in runs):
        return f"{paper} These runs are on other data: the two are not comparable."
    return f"{paper} Compare only runs on UCF101 with the split named paper."


def _cost(runs: Sequence[Run], out: Path) -> list[Block]:
    columns = tables.COST_COLUMNS
    rows = [tables.cost(run) for run in runs]
    tables.write_csv(out / "cost.csv", columns, rows)
    caption = "Clips/s and waiting for data are medians over the epochs."
    if any(run.on_cpu for run in runs):
        caption += " On a CPU the peak memory is that of the whole process."
    return [Table(caption, columns, rows), pictures.costs(out, runs)]


def _test(runs: Sequence[Run], out: Path) -> list[Block]:
    columns = tables.TEST_COLUMNS
    rows = [tables.test(run) for run in runs]
    tables.write_csv(out / "test.csv", columns, rows)
    few = len(_classes(runs[0])) <= 5
    note = " Video@5 says nothing here: there are no more than five classes." if few else ""
    blocks: list[Block] = [Table(_TEST_NOTE + note, columns, rows)]
    chosen = pictures.chosen(runs)
    mistakes = [row for run in chosen for row in tables.confused(run)]
    if mistakes:
        caption = f"The most frequent mistakes, five a model. {_held(chosen)}"
        blocks.append(Table(caption, tables.CONFUSED_COLUMNS, mistakes))
    return [*blocks, *pictures.classes(out, runs)]


def _claims(runs: Sequence[Run]) -> list[Block]:
    if len({(run.split_text(), _classes(run)) for run in runs}) > 1:
        return [Text("Not judged: the runs are of different splits or classes.")]
    rows = [[c.text, c.source, c.verdict, c.evidence] for c in claims.judge(runs)]
    caption = f"What these runs say to the paper's claims. {_held(runs)}"
    note = (
        "A difference in accuracy counts where the intervals do not overlap; a difference in cost "
        "where both were measured with the same device, batch size, frames and size."
    )
    columns = ("Claim", "Where", "These runs", "Figures")
    return [Table(caption, columns, rows), Text(note)]


def _runs(runs: Sequence[Run], missing: Sequence[str]) -> list[Block]:
    """Where each row comes from, and what the report lacks."""
    columns = ("Model", "Run", "Seed", "Device", "torch", "Commit", "Command")
    rows = [
        [
            run.label,
            f"`{run.folder.name}`",
            str(run.config.get("seed", "unknown")),
            str(run.environment.get("device", "unknown")),
            str(run.environment.get("versions", {}).get("torch", "unknown")),
            str(run.environment.get("commit") or "unknown")[:10],
            f"`{_command(run)}`",
        ]
        for run in runs
    ]
    absent = "Missing here: " + "; ".join(missing) + "." if missing else "Nothing is missing."
    return [Table("What each row comes from.", columns, rows), Text(absent)]


def _command(run: Run) -> str:
    """The command line without the folder of the program."""
    command = run.environment.get("command", "unknown")
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    return " ".join([Path(words[0]).name, *words[1:]]) if words else "unknown"


def _missing(
    runs: Sequence[Run], filters: Sequence[Block], examples: Sequence[Block], clips: Sequence[Block]
) -> list[str]:
    """What a full report would show and this one does not."""
    present = {run.model for run in runs}
    lacking = [name for model, name in DISPLAY_NAMES.items() if model not in present]
    absent = [f"runs of {', '.join(lacking)}"] if lacking else []
    if "r2plus1d" not in present:
        absent.append("figure 16 (needs a run of R2Plus1D)")
    if len(filters) < len(present):
        absent.append("first-layer filters of runs without best.pt")
    if len(examples) < len(present):
        absent.append("examples of runs without examples.png (run har-eval again)")
    if not clips:
        absent.append("a contact sheet (har-shards preview draws one; pass --contact-sheet)")
    return absent
