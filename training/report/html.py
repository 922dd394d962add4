"""A report as one HTML file: pictures inside, no script, no network; reads on a phone and a desk.

Odd: nothing is fetched and nothing runs, so the file can be mailed and opened from disk; a policy
in its head forbids both. On a phone a table of few columns is set smaller, and one of many columns
or of sentences becomes a list, a block for each row and a line for each cell: no figure of Table 1
hides to the right. Pictures too wide for a phone scroll in a box of their own, the page itself
never does.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from html import escape
from pathlib import Path

from .document import Block, Picture, Section, Table, Text, number_columns

_CSS = """
:root{color-scheme:light;--ink:#1d2430;--soft:#5a6675;--line:#dfe4ea;--paper:#fff;--band:#f5f7fa;
--accent:#0b5c93}
*{box-sizing:border-box}
body{margin:0;background:var(--band);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 16px}
header{padding-top:28px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 12px}
h2{font-size:1.2rem;margin:0 0 12px}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 20px;padding:0}
a{color:var(--accent)}
nav a{display:inline-block;padding:4px 0}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;
padding:18px 20px;margin:0 0 18px}
p{max-width:76ch;margin:0 0 12px;overflow-wrap:anywhere}
.strong{border-left:4px solid #c77700;background:#fff8ec;padding:8px 12px;max-width:none}
code{background:var(--band);padding:1px 4px;border-radius:4px;font-size:.9em}
.option{white-space:nowrap}
.scroll{overflow-x:auto;margin:0 0 18px}
table{border-collapse:separate;border-spacing:0;font-size:.9rem;font-variant-numeric:tabular-nums}
.caption{color:var(--soft);font-size:.9rem;margin:0 0 6px;max-width:96ch}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.text{min-width:14ch;max-width:60ch}
thead th{vertical-align:bottom;border-bottom:2px solid var(--ink)}
tbody th{font-weight:600;min-width:24ch;background:var(--paper)}
th.short{min-width:0;white-space:nowrap;position:sticky;left:0}
.number{text-align:right}td.number{white-space:nowrap}
.pictures{display:grid;gap:18px;align-items:start;margin:0 0 18px;
grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr))}
figure{margin:0;min-width:0}
figure.wide{grid-column:1/-1}
img{display:block;max-width:100%;height:auto}
.wide .scroll{margin:0}
.wide img{max-width:none}
figcaption{color:var(--soft);font-size:.88rem;margin-top:4px}
footer{color:var(--soft);font-size:.88rem;padding-bottom:28px}
@media (max-width:600px){section{padding:14px 12px}h1{font-size:1.4rem}th,td{padding:6px 8px}
tbody th{min-width:18ch}
.tight{font-size:.7rem;width:100%}.tight th,.tight td{padding:6px 2px;min-width:0}
.tight .text{overflow-wrap:anywhere}
.list thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
.list,.list tbody,.list tr,.list th,.list td{display:block;width:auto;max-width:none;
text-align:left;white-space:normal;overflow-wrap:anywhere;position:static}
.list tr{border-bottom:1px solid var(--line);padding:8px 0}
.list th,.list td{border:0;padding:2px 0;min-width:0}
.list td::before{content:attr(data-column) ": ";color:var(--soft)}}
"""
_SHORT = 18  # letters
_FEW = 7  # columns, as Table 1 has
_LONG = 30  # letters


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The document as one self-contained HTML page; pictures are read from their paths."""
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections)
    body = "\n".join(_section(section) for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><p>{_inline(lead)}</p>
<nav aria-label="Sections"><ul>{links}</ul></nav></header>
<main>
{body}
</main>
<footer><p>Written by <code>har-report</code>. The same content is in report.md beside this file;
the tables are there as CSV, the pictures as PNG
and what was drawn here as SVG, too.</p></footer>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts, pictures = [], []
    for block in section.blocks:
        if isinstance(block, Picture):
            pictures.append(_picture(block))
            continue
        parts.append(_gallery(pictures))
        pictures = []
        parts.append(_block(block))
    parts.append(_gallery(pictures))
    inside = "\n".join(part for part in parts if part)
    return (
        f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">\n'
        f'<h2 id="{section.anchor}-title">{escape(section.title)}</h2>\n{inside}\n</section>'
    )


def _gallery(pictures: Sequence[str]) -> str:
    return f'<div class="pictures">{"".join(pictures)}</div>' if pictures else ""


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p{' class=strong' if block.strong else ''}>{_inline(block.text)}</p>"
    assert isinstance(block, Table)
    return _table(block)


def _inline(text: str) -> str:
    """Escaped, `code` as such; a browser must not break "--epochs" behind its first hyphen."""

    def code(found: re.Match[str]) -> str:
        words = re.sub(r"(?<!\S)--[\w-]+", r'<span class="option">\g<0></span>', found[1])
        return f"<code>{words}</code>"

    return re.sub(r"`([^`]+)`", code, escape(text))


def _table(table: Table) -> str:
    numbers = number_columns(table)
    kinds = ["number" if number else "text" for number in numbers]
    head = "".join(
        f'<th scope="col" role="columnheader" class="{kind}">{escape(name)}</th>'
        for kind, name in zip(kinds, table.columns, strict=True)
    )
    rows = "".join(
        f'<tr role="row">{_cells(row, kinds, table.columns)}</tr>\n' for row in table.rows
    )
    label = escape(table.caption, quote=True)
    on_phone = "list" if _is_list_on_phone(table) else "tight"
    # not a <caption>: that scrolls with the table and is cut off on a phone. Roles: what is laid
    # out as a block is no table to a screen reader otherwise
    return (
        f'<p class="caption">{_inline(table.caption)}</p>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f'<table class="{on_phone}" role="table" aria-label="{label}">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">{rows}</tbody></table></div>'
    )


def _is_list_on_phone(table: Table) -> bool:
    cells = [cell for row in table.rows for cell in row]
    return len(table.columns) > _FEW or max(map(len, cells), default=0) > _LONG


def _cells(row: Sequence[str], kinds: Sequence[str], columns: Sequence[str]) -> str:
    first, *rest = row
    # a short name stays in sight while the rest of its row scrolls on a phone
    kind = ' class="short"' if len(first) <= _SHORT else ""
    cells = [f'<th scope="row" role="rowheader"{kind}>{_inline(first)}</th>']
    cells += [
        f'<td role="cell" class="{kind}" data-column="{escape(name)}">{_inline(cell)}</td>'
        for kind, cell, name in zip(kinds[1:], rest, columns[1:], strict=True)
    ]
    return "".join(cells)


def _picture(picture: Picture) -> str:
    data = picture.path.read_bytes()
    width, height = png_size(data)
    shown = (width // 2, height // 2)  # the pictures have two pixels for each CSS pixel
    image = (
        f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}"'
        f' width="{shown[0]}" height="{shown[1]}" alt="{escape(picture.alt, quote=True)}">'
    )
    caption = f"<figcaption>{_inline(picture.caption)}</figcaption>"
    if not picture.wide:
        return f"<figure>{image}{caption}</figure>"
    label = escape(picture.caption, quote=True)
    box = f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{image}</div>'
    return f'<figure class="wide">{box}{caption}</figure>'


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG from its header, so that the page does not jump while it loads."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise ValueError("not a PNG")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def write(path: Path, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write the page, whole or not at all; -> path."""
    from ...atomic import write_atomically

    write_atomically(path, page(title, lead, sections).encode())
    return path
