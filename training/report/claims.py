"""The claims page: what the paper says, and what the figures of these runs say to it.

Odd: a difference counts only where the intervals of the two models do not overlap, and a cost only
where both were measured alike (same device, batch size, frames and size); otherwise the verdict
is "undecided" or "not tested", which is the honest answer of a small set.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..plots import DISPLAY_NAMES
from .runs import ORDER, Run
from .tables import PAPER, format_duration

FOR, AGAINST, MIXED = "speaks for it", "speaks against it", "mixed"
UNDECIDED, NOT_TESTED = "undecided", "not tested by these runs"
SLIGHT = 0.05  # accuracy; the paper's own "slightly" is 0.0396 (R3D over R2Plus1D)

Runs = Sequence[Run]


@dataclass(frozen=True)
class Claim:
    """One claim, where the paper makes it, the verdict (one of the constants) and its figures."""

    text: str
    source: str
    verdict: str
    evidence: str


def judge(runs: Runs) -> list[Claim]:
    """Every claim of the paper that figures can speak to, judged by these runs."""
    judges: tuple[tuple[str, str, Callable[[Runs], tuple[str, str]]], ...] = (
        (
            "Test accuracy ranks R3D > R2Plus1D > ResNet3D > ConvLSTM.",
            "Table 1, section 10",
            _ranking,
        ),
        ("Pretraining helps slightly (R3D over R2Plus1D).", "abstract, section 10", _pretraining),
        (
            "R(2+1)D trains faster and with less resources than full 3-D convolutions (ResNet3D).",
            "section 1.2",
            _factorised,
        ),
        ("R3D and R2Plus1D need less training time than the others.", "abstract", _time),
        ("ConvLSTM has the largest memory footprint.", "section 1, memory", _memory),
        ("R2Plus1D and ResNet3D would improve with more epochs.", "section 9", _more_epochs),
        ("Class weights help.", "section 6", _class_weights),
    )
    return [Claim(text, source, *judge_one(runs)) for text, source, judge_one in judges]


def _of(runs: Runs, model: str) -> list[Run]:
    return [run for run in runs if run.model == model]


def _present(runs: Runs) -> list[str]:
    return [model for model in ORDER if _of(runs, model)]


def _accuracy(runs: Runs) -> float:
    return statistics.mean(run.evaluation["video@1"] for run in runs)


def _interval(runs: Runs) -> tuple[float, float]:
    """The widest interval that covers those of all seeds."""
    intervals = [run.evaluation["interval"] for run in runs]
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _compare(first: Runs, second: Runs) -> str:
    """Is `first` better on the test side? FOR, AGAINST, or UNDECIDED where intervals overlap."""
    (low1, high1), (low2, high2) = _interval(first), _interval(second)
    if low1 > high2:
        return FOR
    return AGAINST if high1 < low2 else UNDECIDED


def _together(verdicts: Sequence[str]) -> str:
    """Several comparisons -> one verdict; undecided ones do not overrule decided ones."""
    decided = {verdict for verdict in verdicts if verdict != UNDECIDED}
    if not decided:
        return UNDECIDED
    if len(decided) > 1:
        return MIXED
    verdict = decided.pop()
    return verdict if UNDECIDED not in verdicts else f"{verdict}, in part undecided"


def _ranking(runs: Runs) -> tuple[str, str]:
    present = _present(runs)
    figures = "; ".join(
        f"{DISPLAY_NAMES[m]} {_accuracy(_of(runs, m)):.4f} ({{:.4f}} to {{:.4f}})".format(
            *_interval(_of(runs, m))
        )
        for m in present
    )
    if len(present) < 2:
        return NOT_TESTED, f"One model only: {figures}."
    verdicts = [_compare(_of(runs, a), _of(runs, b)) for a, b in pairwise(present)]
    note = "" if _pretrained(runs) or "r3d" not in present else " R3D was not pretrained here."
    return _together(verdicts), f"{figures}.{note}"


def _pretrained(runs: Runs) -> bool:
    return bool(_of(runs, "r3d")) and all(
        run.config.get("weights", "none") != "none" for run in _of(runs, "r3d")
    )


def _pretraining(runs: Runs) -> tuple[str, str]:
    ours, other = _of(runs, "r3d"), _of(runs, "r2plus1d")
    if not ours or not other:
        return NOT_TESTED, "Needs a run of R3D and one of R2Plus1D."
    if not _pretrained(runs):
        return NOT_TESTED, "R3D was trained without pretrained weights here."
    gain = _accuracy(ours) - _accuracy(other)
    paper = PAPER[0].test_acc - PAPER[1].test_acc
    evidence = f"R3D minus R2Plus1D: {gain:+.4f} (the paper: {paper:+.4f})."
    verdict = _compare(ours, other)
    if verdict == FOR and gain > SLIGHT:
        return AGAINST, f"{evidence} More than slightly (above {SLIGHT})."
    return verdict, evidence


def _alike(*groups: Runs) -> bool:
    """Whether costs may be compared: one device, one batch size, the same frames and size."""
    measured = {
        (run.environment.get("device"), *(run.config.get(k) for k in _COST_SETTINGS))
        for runs in groups
        for run in runs
    }
    return len(measured) == 1


_COST_SETTINGS = ("batch_size", "frames", "size", "precision")
_NOT_ALIKE = "The runs differ in device, batch size, frames or size."


def _factorised(runs: Runs) -> tuple[str, str]:
    ours, other = _of(runs, "r2plus1d"), _of(runs, "resnet3d")
    if not ours or not other:
        return NOT_TESTED, "Needs a run of R2Plus1D and one of ResNet3D."
    speeds = [_mean(group, lambda run: run.median("clips_per_s")) for group in (ours, other)]
    peaks = [_mean(group, lambda run: run.peak_bytes / 2**30) for group in (ours, other)]
    evidence = f"Clips/s: R2Plus1D {speeds[0]:,.1f}, ResNet3D {speeds[1]:,.1f}."
    if not _alike(ours, other):
        return NOT_TESTED, f"{evidence} {_NOT_ALIKE}"
    verdicts = [FOR if speeds[0] > speeds[1] else AGAINST]
    if any(run.on_cpu for run in (*ours, *other)):
        return verdicts[0], f"{evidence} Memory: {_CPU_MEMORY}"
    verdicts.append(FOR if peaks[0] < peaks[1] else AGAINST)
    evidence += f" Peak memory: {peaks[0]:.2f} and {peaks[1]:.2f} GiB."
    return _together(verdicts), evidence


_CPU_MEMORY = "on a CPU the peak is of the whole process and says little about the model."


def _mean(runs: Runs, value: Callable[[Run], float]) -> float:
    return statistics.mean(value(run) for run in runs)


def _time(runs: Runs) -> tuple[str, str]:
    present = _present(runs)
    seconds = {m: _mean(_of(runs, m), lambda run: float(run.summary["seconds"])) for m in present}
    evidence = (
        "; ".join(f"{DISPLAY_NAMES[m]} {format_duration(s)}" for m, s in seconds.items()) + "."
    )
    if len(present) < len(ORDER):
        return NOT_TESTED, f"Needs runs of all four models; {evidence}"
    if not _alike(runs):
        return NOT_TESTED, f"{evidence} {_NOT_ALIKE}"
    first = [seconds["r3d"], seconds["r2plus1d"]]
    others = [seconds["resnet3d"], seconds["convlstm"]]
    if max(first) < min(others):
        return FOR, evidence
    return (AGAINST if min(first) > max(others) else MIXED), evidence


def _memory(runs: Runs) -> tuple[str, str]:
    present = _present(runs)
    if "convlstm" not in present or len(present) < 2:
        return NOT_TESTED, "Needs a run of ConvLSTM and one of another model."
    if any(run.on_cpu for run in runs):
        return NOT_TESTED, _CPU_MEMORY[0].upper() + _CPU_MEMORY[1:]
    peaks = {m: _mean(_of(runs, m), lambda run: run.peak_bytes / 2**30) for m in present}
    evidence = "; ".join(f"{DISPLAY_NAMES[m]} {peak:.2f} GiB" for m, peak in peaks.items()) + "."
    if not _alike(runs):
        return NOT_TESTED, f"{evidence} {_NOT_ALIKE}"
    return (FOR if max(peaks, key=lambda m: peaks[m]) == "convlstm" else AGAINST), evidence


def _more_epochs(runs: Runs) -> tuple[str, str]:
    ours = [*_of(runs, "r2plus1d"), *_of(runs, "resnet3d")]
    if not ours:
        return NOT_TESTED, "Needs a run of R2Plus1D or ResNet3D."
    verdicts, evidence = [], []
    for run in ours:
        best, epochs = run.summary["best_epoch"], run.summary["epochs"]
        # still rising when it was cut off, or flat for the last tenth of the run
        verdicts.append(FOR if epochs - best <= epochs // 10 else AGAINST)
        evidence.append(f"{run.label}: best epoch {best} of {epochs}")
    return _together(verdicts), "; ".join(evidence) + "."


def _class_weights(runs: Runs) -> tuple[str, str]:
    verdicts, evidence = [], []
    for model in _present(runs):
        same = _of(runs, model)
        weighted = [run for run in same if run.config.get("class_weights") == "balanced"]
        plain = [run for run in same if run.config.get("class_weights") == "none"]
        if weighted and plain:
            verdicts.append(_compare(weighted, plain))
            with_, without = _accuracy(weighted), _accuracy(plain)
            evidence.append(f"{DISPLAY_NAMES[model]} {with_:.4f} with, {without:.4f} without")
    if not verdicts:
        return NOT_TESTED, "Needs runs of one model with and without --class-weights."
    return _together(verdicts), "; ".join(evidence) + "."
