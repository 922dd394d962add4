"""What becomes of faults on their way out of a command."""

import errno
import os
import warnings
from pathlib import Path

import av
import click
import pytest
from click.testing import CliRunner

from har.atomic import replacing, write_atomically
from har.errors import HarWarning, one_sentence


def told_of_writing(out: Path) -> str:
    """What a command says on stderr that fails to write `out`."""

    @click.command()
    @one_sentence
    def write() -> None:
        write_atomically(out, b"text")

    result = CliRunner().invoke(write)
    assert result.exit_code == 2
    return result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_any_command_is_one_sentence_that_names_the_file(tmp_path: Path):
    out = tmp_path / "report.md"
    (tmp_path / ".report.md.tmp").symlink_to("/dev/full")

    assert told_of_writing(out).strip() == (
        f"Error: {out} cannot be written (No space left on device): free some space, or write to "
        "another disk."
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.EROFS, "give another place, or mend its permissions"),
     (errno.ENAMETOOLONG, "give a shorter name"), (errno.EFBIG, "raise the limit 'ulimit -f'")],
)  # fmt: skip
def test_a_place_that_the_system_refuses_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, text: str
):
    out, reason = tmp_path / "report.md", os.strerror(number)

    def refuse(path: Path, *_: bytes, **more: bool) -> None:
        raise OSError(number, reason, str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)

    told = told_of_writing(out)
    assert told.startswith(f"Error: {out} cannot be used ({reason}): ")
    assert text in told


def test_an_error_whose_file_cannot_be_named_passes_as_it_is(tmp_path: Path):
    with pytest.raises(av.error.OSError), replacing(tmp_path / "a.mp4"):
        raise av.error.OSError(errno.ENOSPC, "No space left on device")


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
