"""What becomes of faults on their way out of a command."""

import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from har.atomic import write_atomically
from har.errors import HarWarning, one_sentence


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_any_command_is_one_sentence_that_names_the_file(tmp_path: Path):
    out = tmp_path / "report.md"
    (tmp_path / ".report.md.tmp").symlink_to("/dev/full")

    @click.command()
    @one_sentence
    def write() -> None:
        write_atomically(out, b"text")

    told = CliRunner().invoke(write)
    assert told.exit_code == 2
    assert told.stderr.strip() == (
        f"Error: {out} cannot be written (No space left on device): free some space, or write to "
        "another disk."
    )


def test_a_command_prints_a_warning_of_har_without_its_code(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restored afterwards

    @click.command()
    @one_sentence
    def warn() -> None:
        given = "fonts.py", 7
        click.echo(warnings.formatwarning("no font has it.", HarWarning, *given, line="best = 1"))
        click.echo(warnings.formatwarning("old", DeprecationWarning, *given, line="best = 1"))

    told = CliRunner().invoke(warn).stdout.splitlines()
    assert told[0] == "warning: no font has it."
    assert told[2:4] == ["fonts.py:7: DeprecationWarning: old", "  best = 1"]
