"""SIGKILL at any moment of an edit: the set is the old one or the new one, and the edit can be run
again. `add` and builds: tests/pipeline/build."""

from pathlib import Path

import killed_edits
import pytest
from made_tars import make_tars

from har.shards.edit import relabel_clips, remove_clips

SHAPE = (2, 6, 8, 3)


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("compact", 3),
        *(
            pytest.param(name, 0, marks=pytest.mark.slow)
            for name in ("compact", "merge", "subset", "remove", "relabel")
        ),
    ],
)
def test_a_killed_edit_leaves_the_old_set_or_the_new_one(
    tmp_path: Path, name: str, moments: int
) -> None:
    pristine = tmp_path / "pristine"
    pristine.mkdir()
    make_tars(pristine / "set", 3, 12, SHAPE)
    make_tars(pristine / "other", 2, 8, SHAPE, first=12)
    remove_clips(pristine / "set", ["v_c000_g00_c00"])
    relabel_clips(pristine / "set", [{"key": "v_c001_g03_c00", "label": "new"}])
    assert "old" in killed_edits.check(name, tmp_path, moments)
