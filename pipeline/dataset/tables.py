"""Text of a list -> rows with their line numbers: any encoding that Excel writes, any delimiter.

Excel saves "Unicode text" as UTF-16 with tabs, "CSV" in the code page of Windows and, where the
comma is the decimal point, with semicolons.
"""

import codecs
import csv
import io
import re
from dataclasses import dataclass

from .records import DatasetError

_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"
}  # fmt: skip
CODE_PAGE = "cp1252"
_DELIMITERS = (";", "\t", ",")


@dataclass(frozen=True)
class TableRow:
    """line: of the file, from 1, on which the row begins."""

    line: int
    fields: list[str]


def decode_text(data: bytes, what: str) -> str:
    """UTF-8 and UTF-16, with a byte order mark or without, else the Windows code page 1252.

    what: as the error calls it. Raises DatasetError.
    """
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), None)
    if encoding is None and b"\0" in data[:100]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    for candidate in (encoding,) if encoding else ("utf-8", CODE_PAGE):
        try:
            return data.decode(candidate)
        except UnicodeDecodeError:
            continue
    raise DatasetError(
        f"{what} is no text in UTF-8, UTF-16 or the Windows code page 1252: save it as 'CSV UTF-8'."
    )


def is_code_page(data: bytes) -> bool:
    """Whether `decode_text` falls back on the Windows code page: what it gives is a guess."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return False


def find_delimiter(text: str) -> str | None:
    """The delimiter of a CSV: what `sep=;` in the first line says, else what stands in the header,
    else the one in every line; None for lines of other kinds."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    if match := re.fullmatch(r"\ufeff?sep=(.)\s*", lines[0]):
        return match[1]
    for delimiter in _DELIMITERS:
        if has_columns(lines[0].split(delimiter)):
            return delimiter
    return next((mark for mark in _DELIMITERS if all(mark in line for line in lines)), None)


def column_names(fields: list[str]) -> list[str]:
    return [field.strip().strip('"').strip().casefold() for field in fields]


def has_columns(fields: list[str]) -> bool:
    """Whether these are the names of columns and not the first row."""
    return not {"path", "youtube_id"}.isdisjoint(column_names(fields))


def name_fields(columns: list[str], rows: list[TableRow], place: str) -> list[dict[str, str]]:
    """Column -> field of each row. Raises DatasetError."""
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise DatasetError(f"{place} has two columns {twice[0]!r}: leave one of them out.")
    for row in rows:
        if any(field.strip() for field in row.fields[len(columns) :]):
            raise DatasetError(
                f"{place}, line {row.line}: it has {len(row.fields)} fields and the header "
                f"{len(columns)}: put a field that holds the delimiter in quotes."
            )
    return [dict(zip(columns, row.fields, strict=False)) for row in rows]


def read_rows(text: str, delimiter: str, what: str) -> list[TableRow]:
    """The rows that hold anything; blank lines and line ends in quotes count as lines.

    Raises DatasetError.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[TableRow] = []
    try:
        while True:
            line = reader.line_num + 1
            fields = next(reader, None)
            if fields is None:
                return rows
            if any(field.strip() for field in fields) and fields[0][:4] != "sep=":
                rows.append(TableRow(line, fields))
    except csv.Error as error:
        raise DatasetError(f"{what}, line {line}: this is no CSV ({error}).") from error
