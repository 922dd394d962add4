"""What becomes of faults on their way out of a command."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from har.atomic import write_atomically
from har.errors import one_sentence


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
