"""A report as data: sections of texts, tables and pictures.

report.md and report.html are made from the same blocks, so that they cannot disagree. Text is
plain, except for what `code` marks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

# Unicode has these two for internal use, so that no name has them: a class may have a backtick.
CODE = re.compile("\ufdd0(.*?)\ufdd1", re.DOTALL)


def code(text: str) -> str:
    """`text` marked as code."""
    return f"\ufdd0{text}\ufdd1"


@dataclass(frozen=True)
class Text:
    """A paragraph. strong: a sentence that must not be overlooked."""

    kind: ClassVar[str] = "text"
    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row. caption: what it shows, for whom it holds."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @classmethod
    def from_dicts(cls, caption: str, rows: Sequence[dict[str, str]]) -> Self:
        """One or more rows, each column -> cell, all of the same columns."""
        return cls(caption, list(rows[0]), [list(row.values()) for row in rows])

    @property
    def is_numeric(self) -> list[bool]:
        """For each column whether it holds numbers, which are right-aligned."""
        columns = ([row[n] for row in self.rows] for n in range(1, len(self.columns)))
        return [False, *(all(map(_is_number, cells)) for cells in columns)]

    @property
    def max_cell_length(self) -> int:
        return max((len(cell) for row in self.rows for cell in row), default=0)


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in ("-", "−", "+")


@dataclass(frozen=True)
class Picture:
    """A PNG in the report's folder. alt: what there is to see; wide: too large for a column."""

    kind: ClassVar[str] = "picture"
    path: Path
    caption: str
    alt: str
    wide: bool = False


Block = Text | Table | Picture


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The section's name in a link."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower()).strip("-")
