"""The results of `make gpu` as a Markdown page."""

from collections.abc import Iterable, Sequence
from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """The page of a session, of the parts that have run; see `har.training.benchmark.gpu`."""
    environment = ", ".join(f"{name} {value}" for name, value in results["environment"].items())
    blocks = [f"# Measured on a GPU\n\n{environment}"]
    if "tests" in results:
        last_line = (results["tests"]["output"].strip().splitlines() or ["no output"])[-1]
        blocks.append(f"GPU tests: exit code {results['tests']['exit code']}: {last_line}")
    if results.get("models"):
        blocks += ["## A training step", _legend(results["models"]), _models(results["models"])]
    for name, kernels in results.get("kernels", {}).items():
        rows = [
            (kernel["name"][:80], f"{kernel['share']:.1%}", f"{kernel['calls']:g}",
             f"{kernel['milliseconds']:.2f}")
            for kernel in kernels
        ]  # fmt: skip
        blocks += [
            f"## Longest kernels of {name}",
            _table(("kernel", "share", "calls", "ms"), rows),
        ]
    if "slow kernels" in results:
        slow = "; ".join(results["slow kernels"]) or "none"
        blocks.append(f"Kernels that should not be there: {slow}.")
    if results.get("variants"):
        blocks += ["## Variants", _variants(results["variants"])]
    if results.get("not run"):
        skipped = (f"- {what}: {reason}" for what, reason in results["not run"].items())
        blocks += ["## Not run", "\n".join(skipped)]
    return "\n\n".join(blocks) + "\n"


def _legend(models: list[dict[str, Any]]) -> str:
    """What the columns mean, and the peaks that shares are of."""
    peaks: dict[str, float] = {}
    for row in models:
        peak = row["matrix_flops_per_s"] / 1e12
        peaks[row["precision"]] = max(peak, peaks.get(row["precision"], 0.0))
    peak_texts = [f"{precision} {peak:.3g} TFLOP/s" for precision, peak in peaks.items()]
    return (
        "Speed-up: times as fast as the baseline, torchvision's network (of convlstm the naive "
        "one) in a plain float32 loop, with TF32 but in rows of fp32. Steps on loader batches and "
        "with `--cache gpu`: their time over that of a step on a batch that stays on the device. "
        f"Peak of a matrix product: {', '.join(peak_texts)}."
    )


def _models(models: list[dict[str, Any]]) -> str:
    head = (
        "model", "batch", "precision", "clips/s", "share of the matrix peak", "peak GB",
        "data wait", "step on loader batches", "step with `--cache gpu`", "baseline clips/s",
        "speed-up",
    )  # fmt: skip
    rows = [
        (
            row["model"], row["batch_size"], row["precision"], f"{row['clips_per_s']:.0f}",
            f"{row['mfu']:.1%}", f"{row['peak_bytes'] / 1e9:.2f}", f"{row['data_wait']:.1%}",
            f"{row['ratio.loader_step']:.2f}x", f"{row['ratio.gpu_cache_step']:.2f}x",
            f"{row['baseline_clips_per_s']:.0f}", f"{row['ratio.baseline']:.2f}x",
        )
        for row in models
    ]  # fmt: skip
    return _table(head, rows)


def _variants(variants: list[dict[str, Any]]) -> str:
    rows = [
        (row["model"], row["variant"], f"{row['ratio.today']:.2f}x", f"{row['difference']:.1e}")
        for row in variants
    ]
    return _table(("model", "variant", "times as fast as today", "difference of logits"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
