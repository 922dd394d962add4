"""A report as data: sections of texts, tables and pictures; and its form as Markdown.

Odd: report.md and report.html are made from the same blocks, so that they cannot disagree. Text
is plain, except that `code` stands in backticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Text:
    """A paragraph. strong: a sentence that must not be overlooked."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row. caption: what it shows, for whom it holds."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG in the report's folder. alt: what there is to see; wide: too large for a column."""

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


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The document as Markdown; pictures are linked by file name."""
    parts = [f"# {title}"]
    parts.append("\n".join(f"- [{s.title}](#{s.anchor})" for s in sections))
    for section in sections:
        parts.append(f"## {section.title}")
        parts.extend(_markdown(block) for block in section.blocks)
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Text):
        return f"**{block.text}**" if block.strong else block.text
    if isinstance(block, Picture):
        return f"![{block.alt}]({block.path.name})\n\n*{block.caption}*"
    return _markdown_table(block)


def _markdown_table(table: Table) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (table.columns, *table.rows)]
    numeric = ["---:" if number else "---" for number in number_columns(table)]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], numeric, *rows[1:])]
    return f"*{table.caption}*\n\n" + "\n".join(lines)


def number_columns(table: Table) -> list[bool]:
    """For each column whether it holds numbers, to be set flush right."""
    columns = [[row[n] for row in table.rows] for n in range(len(table.columns))]
    return [False, *(all(_number(cell) for cell in cells) for cells in columns[1:])]


def _number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in ("-", "−", "+")
