"""`har-predict`: the answers to videos as text, CSV or JSON, on standard output or in a file."""

import contextlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...progress import ProgressBar
from .answers import choose_format, describe_milliseconds, open_answers
from .pictures import refuse_videos
from .predict import iterate_predictions
from .results import STAGES


def predict_videos(
    run_dir: Path,
    videos: Sequence[str | Path],
    *,
    top: int = 5,
    as_json: bool = False,
    as_csv: bool = False,
    out: Path | None = None,
    **options: Any,
) -> int:
    """Predict `videos` and print, or write to `out`; -> exit code, 1 when any failed. options: of
    `iterate_predictions`.

    Raises PredictionError or CheckpointError, each one sentence.
    """
    file_format = choose_format(as_json, as_csv, out)
    sources, answers = iterate_predictions(run_dir, videos, **options)
    num_videos, is_terminal = len(sources), sys.stderr.isatty()
    if out is not None:
        refuse_videos("-o", [out], sources)
    has_label, has_timing = options.get("threshold") is not None, bool(options.get("timing"))
    num_failed, total = 0, Counter[str]()
    with (
        open_answers(file_format, out, has_label=has_label, has_timing=has_timing) as add,
        ProgressBar(num_videos, "predict", quiet=num_videos < 2) as bar,
    ):
        for answer in answers:
            num_failed += bool(answer.error)
            total.update(answer.milliseconds)
            with ProgressBar.external_write_mode() if is_terminal else contextlib.nullcontext():
                for text in answer.messages:
                    print(text, file=sys.stderr)
                add(answer.to_dict(top))
            bar.advance()
    if out is not None:
        failed = f", {num_failed} of them without an answer" if num_failed else ""
        print(f"{out}: {_count(num_videos)}{failed}", file=sys.stderr)
    if has_timing and (count := num_videos - num_failed):
        means = {stage: total[stage] / count for stage in STAGES}
        print(f"mean of {_count(count)}: {describe_milliseconds(means)}", file=sys.stderr)
    return 1 if num_failed else 0


def _count(num_videos: int) -> str:
    return f"{num_videos} video{'s' * (num_videos != 1)}"
