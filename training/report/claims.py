"""The claims page: what the paper says, and what the figures of these runs say about it.

A claim is judged by pairs of runs that differ in what it is about and in nothing else: of two
models those of one recipe (`comparison.recipe_of`), of a setting those that agree in all others. A
difference in accuracy counts only where the intervals of the two do not overlap, which is stricter
than a test at the 5 % level, and one in cost only where both were measured alike (same device,
batch size, frames and size). Otherwise the verdict is "inconclusive" or "not tested", which is the
honest answer of a small data set.
"""

import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import NamedTuple

from .comparison import group_by_model, group_seeds, recipe_of, settings_of
from .document import code
from .runs import MODEL_ORDER, Run
from .tables import PAPER_TABLE1, format_duration

SUPPORTED, CONTRADICTED, MIXED = "supported", "contradicted", "mixed"
INCONCLUSIVE, NOT_TESTED = "inconclusive", "not tested by these runs"
SLIGHTLY = 0.05  # of accuracy; the paper's own "slightly" is 0.0396 (R3D over R2Plus1D)
_COST_SETTINGS = ("batch_size", "frames", "size", "precision")
_MEASURED_DIFFERENTLY = "The runs differ in device, batch size, frames or size."
_NO_PAIR = "No pair of runs differs in this alone."
_CPU_MEMORY = "on a CPU the peak is of the whole process and says little about the model."

Groups = dict[str, list[Run]]  # the runs of each of the paper's models that is there
Judge = Callable[[Groups], tuple[str, str]]


class Claim(NamedTuple):
    """One claim, where the paper makes it, the verdict (one of the constants) and its figures."""

    text: str
    source: str
    verdict: str
    evidence: str


def judge_claims(runs: Sequence[Run]) -> list[Claim]:
    """Every claim of the paper that figures can decide, judged by these runs."""
    groups, comparable = _group_models(runs), _list_comparable(runs)
    return [
        Claim(text, source, *_judge(judge, groups, comparable)) for text, source, judge in _CLAIMS
    ]


def _group_models(runs: Sequence[Run]) -> Groups:
    groups = group_by_model(runs)
    return {model: groups[model] for model in MODEL_ORDER if model in groups}


def _list_comparable(runs: Sequence[Run]) -> list[Groups]:
    """Groups of one recipe each, in which the runs of a model differ in the seed alone."""
    recipes: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        recipes.setdefault(recipe_of(run), []).append(run)
    choices = (
        [list(group_seeds(of_model).values()) for of_model in _group_models(of_recipe).values()]
        for of_recipe in recipes.values()
    )
    return [
        {rows[0].model: rows for rows in choice}
        for rows_of in choices
        for choice in product(*rows_of)
    ]


def _judge(judge: Judge, groups: Groups, comparable: Sequence[Groups]) -> tuple[str, str]:
    """The verdict of all comparable groups together."""
    if judge in (_judge_more_epochs, _judge_class_weights):  # not about models: they pair runs
        return judge(groups)
    tested = [answer for answer in map(judge, comparable) if answer[0] != NOT_TESTED]
    if not tested:
        verdict, evidence = judge(groups)
        return NOT_TESTED, evidence if verdict == NOT_TESTED else _NO_PAIR
    evidence = " ".join(dict.fromkeys(evidence for _, evidence in tested))
    return _combine([verdict for verdict, _ in tested]), evidence


def _accuracy(runs: Sequence[Run]) -> float:
    return statistics.mean(run.evaluation["video@1"] for run in runs)


def _interval(runs: Sequence[Run]) -> tuple[float, float]:
    """The smallest interval that covers those of all seeds."""
    lows, highs = zip(*(run.evaluation["interval"] for run in runs), strict=True)
    return min(lows), max(highs)


def _compare(first: Sequence[Run], second: Sequence[Run]) -> str:
    """Is `first` better on the test subset? INCONCLUSIVE where the intervals overlap."""
    (low1, high1), (low2, high2) = _interval(first), _interval(second)
    if low1 > high2:
        return SUPPORTED
    return CONTRADICTED if high1 < low2 else INCONCLUSIVE


def _combine(verdicts: Sequence[str]) -> str:
    """Several comparisons -> one verdict; inconclusive ones do not overrule the others."""
    decided = {verdict for verdict in verdicts if verdict != INCONCLUSIVE}
    if len(decided) != 1:
        return MIXED if decided else INCONCLUSIVE
    verdict = decided.pop()
    return f"{verdict}, in part {INCONCLUSIVE}" if INCONCLUSIVE in verdicts else verdict


def _means(groups: Groups, value: Callable[[Run], float]) -> dict[str, float]:
    """Display name of each model -> the mean over its runs."""
    return {
        runs[0].display_name: statistics.mean(float(value(run)) for run in runs)
        for runs in groups.values()
    }


def _same_conditions(groups: Groups) -> bool:
    """Whether costs may be compared: one device, one batch size, the same frames and size."""
    conditions = {
        (run.environment.get("device"), *(run.config.get(name) for name in _COST_SETTINGS))
        for runs in groups.values()
        for run in runs
    }
    return len(conditions) == 1


def _is_pretrained(groups: Groups) -> bool:
    return all(run.config.get("weights", "none") != "none" for run in groups["r3d"])


def _judge_ranking(groups: Groups) -> tuple[str, str]:
    figures = "; ".join(
        "{} {:.4f} ({:.4f} to {:.4f})".format(
            runs[0].display_name, _accuracy(runs), *_interval(runs)
        )
        for runs in groups.values()
    )
    if len(groups) < 2:
        return NOT_TESTED, f"One model only: {figures}."
    verdicts = [_compare(first, second) for first, second in pairwise(groups.values())]
    untrained = "r3d" in groups and not _is_pretrained(groups)
    note = " R3D was not pretrained here." if untrained else ""
    return _combine(verdicts), f"{figures}.{note}"


def _judge_pretraining(groups: Groups) -> tuple[str, str]:
    if not {"r3d", "r2plus1d"} <= groups.keys():
        return NOT_TESTED, "Needs a run of R3D and one of R2Plus1D."
    if not _is_pretrained(groups):
        return NOT_TESTED, "R3D was trained without pretrained weights here."
    gain = _accuracy(groups["r3d"]) - _accuracy(groups["r2plus1d"])
    paper_gain = PAPER_TABLE1[0].test_acc - PAPER_TABLE1[1].test_acc
    evidence = f"R3D minus R2Plus1D: {gain:+.4f} (the paper: {paper_gain:+.4f})."
    verdict = _compare(groups["r3d"], groups["r2plus1d"])
    if verdict == SUPPORTED and gain > SLIGHTLY:
        return CONTRADICTED, f"{evidence} More than slightly (above {SLIGHTLY})."
    return verdict, evidence


def _judge_factorized(groups: Groups) -> tuple[str, str]:
    pair: Groups = {model: groups[model] for model in ("r2plus1d", "resnet3d") if model in groups}
    if len(pair) < 2:
        return NOT_TESTED, "Needs a run of R2Plus1D and one of ResNet3D."
    speeds = _means(pair, lambda run: run.median("clips_per_s"))
    evidence = "Clips/s: " + ", ".join(f"{m} {s:,.1f}" for m, s in speeds.items()) + "."
    if not _same_conditions(pair):
        return NOT_TESTED, f"{evidence} {_MEASURED_DIFFERENTLY}"
    verdicts = [SUPPORTED if speeds["R2Plus1D"] > speeds["ResNet3D"] else CONTRADICTED]
    if any(run.on_cpu for runs in pair.values() for run in runs):
        return verdicts[0], f"{evidence} Memory: {_CPU_MEMORY}"
    first, second = _means(pair, lambda run: run.peak_gib).values()
    verdicts.append(SUPPORTED if first < second else CONTRADICTED)
    return _combine(verdicts), f"{evidence} Peak memory: {first:.2f} and {second:.2f} GiB."


def _judge_time(groups: Groups) -> tuple[str, str]:
    seconds = _means(groups, lambda run: run.summary["seconds"])
    evidence = "; ".join(f"{model} {format_duration(s)}" for model, s in seconds.items()) + "."
    if len(groups) < len(MODEL_ORDER):
        return NOT_TESTED, f"Needs runs of all four models; {evidence}"
    if not _same_conditions(groups):
        return NOT_TESTED, f"{evidence} {_MEASURED_DIFFERENTLY}"
    r3d, r2plus1d, *others = seconds.values()
    if max(r3d, r2plus1d) < min(others):
        return SUPPORTED, evidence
    return (CONTRADICTED if min(r3d, r2plus1d) > max(others) else MIXED), evidence


def _judge_memory(groups: Groups) -> tuple[str, str]:
    if "convlstm" not in groups or len(groups) < 2:
        return NOT_TESTED, "Needs a run of ConvLSTM and one of another model."
    if any(run.on_cpu for runs in groups.values() for run in runs):
        return NOT_TESTED, f"O{_CPU_MEMORY[1:]}"
    peaks = _means(groups, lambda run: run.peak_gib)
    evidence = "; ".join(f"{model} {peak:.2f} GiB" for model, peak in peaks.items()) + "."
    if not _same_conditions(groups):
        return NOT_TESTED, f"{evidence} {_MEASURED_DIFFERENTLY}"
    largest = max(peaks, key=lambda model: peaks[model])
    return (SUPPORTED if largest == "ConvLSTM" else CONTRADICTED), evidence


def _judge_more_epochs(groups: Groups) -> tuple[str, str]:
    rows = [*groups.get("r2plus1d", []), *groups.get("resnet3d", [])]
    if not rows:
        return NOT_TESTED, "Needs a run of R2Plus1D or ResNet3D."
    verdicts, evidence = [], []
    for run in (part for row in rows for part in row.parts):
        best, epochs = run.summary["best_epoch"], run.summary["epochs"]
        # the best epoch is among the last tenth: validation accuracy still rose at the end
        verdicts.append(SUPPORTED if epochs - best <= epochs // 10 else CONTRADICTED)
        name = run.label or f"{run.display_name}, {run.folder.name}"
        evidence.append(f"{name}: best epoch {best} of {epochs}")
    return _combine(verdicts), "; ".join(evidence) + "."


def _judge_class_weights(groups: Groups) -> tuple[str, str]:
    verdicts, evidence, seen = [], [], False
    for runs in groups.values():
        rows: dict[tuple[str, ...], dict[str, list[Run]]] = {}  # other settings -> with, without
        for run in runs:
            settings = settings_of(run)
            value = settings.pop("class_weights")
            del settings["preset"]
            key = tuple(f"{name} {setting!r}" for name, setting in settings.items())
            rows.setdefault(key, {}).setdefault(value, []).append(run)
        seen |= len({value for row in rows.values() for value in row}) > 1
        for row in rows.values():
            if len(row) > 1:
                verdicts.append(_compare(row["balanced"], row["none"]))
                figures = (
                    f"{_accuracy(row['balanced']):.4f} with, {_accuracy(row['none']):.4f} without"
                )
                evidence.append(f"{row['balanced'][0].row_label} {figures}")
    if not verdicts:
        needed = f"Needs runs of one model with and without {code('--class-weights')}."
        return NOT_TESTED, _NO_PAIR if seen else needed
    return _combine(verdicts), "; ".join(evidence) + "."


_CLAIMS = (
    ("Test accuracy ranks R3D > R2Plus1D > ResNet3D > ConvLSTM.",
     "Table 1, section 10", _judge_ranking),
    ("Pretraining helps slightly (R3D over R2Plus1D).", "abstract, section 10", _judge_pretraining),
    ("R(2+1)D trains faster and with less resources than full 3-D convolutions (ResNet3D).",
     "section 1.2", _judge_factorized),
    ("R3D and R2Plus1D need less training time than the others.", "abstract", _judge_time),
    ("ConvLSTM has the largest memory footprint.", "section 1, memory", _judge_memory),
    ("R2Plus1D and ResNet3D would improve with more epochs.", "section 9", _judge_more_epochs),
    ("Class weights help.", "section 6", _judge_class_weights),
)  # fmt: skip
