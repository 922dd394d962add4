"""`har-report`: runs -> tables, claims, pictures, Markdown, HTML, model cards."""

from .comparison import load_runs
from .model_card import write_model_card
from .runs import ReportError, Run, load_run
from .sections import write_report
from .tables import format_duration

__all__ = [
    "ReportError", "Run", "format_duration", "load_run", "load_runs", "write_model_card",
    "write_report",
]  # fmt: skip
