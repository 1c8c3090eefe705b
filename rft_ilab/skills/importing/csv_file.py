"""A table with a header, as CSV (RFC 4180; also with ``;``, tabs or ``|``): one task a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from rft_ilab.errors import SkillError
from rft_ilab.skills.importing.draft import SPLITS, Problems, SourceRow
from rft_ilab.skills.importing.source import MAX_LINE_BYTES, source_lines

DELIMITERS = ",;\t|"


def read_table(
    path: Path, columns: Mapping[str, str], problems: Problems, limit: int | None, delimiter: str | None = None
) -> Iterator[SourceRow]:
    """The rows of a table. ``columns`` says which is the ``prompt``, the ``reference``, and perhaps group, split, id.

    Bad rows are added to ``problems``. Without ``delimiter`` it is the one at which the header has these columns.
    Raises SkillError.
    """
    reader = _reader(path, delimiter or _found_delimiter(path, columns))
    header = _header(next(reader, (1, []))[1], path, columns)
    taken = 0
    for line, cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if taken == limit:
            return
        taken += 1
        if len(cells) != len(header):
            what = f"{len(cells)} cells, but {len(header)} columns"
            problems.add(SkillError(what, where=path, line=line, fix="quote cells that hold the delimiter or a quote"))
            continue
        cell = dict(zip(header, (text.strip() for text in cells), strict=True))
        values = {use: cell[column] for use, column in columns.items()}
        if empty := next((use for use in ("prompt", "reference") if not values[use]), None):
            what = f"column {columns[empty]!r} is empty"
            problems.add(SkillError(what, where=path, line=line, fix="fill it in, or remove the row"))
            continue
        fields = {use: values[use] for use in ("id", "group", "split") if values.get(use)}
        if "split" in fields:
            fields["split"] = SPLITS.get(fields["split"].lower(), fields["split"])
        messages = [{"role": "user", "content": values["prompt"]}]
        yield SourceRow(
            row={"messages": messages, "reference": values["reference"], **fields}, file=path, line=line
        )  # fmt: skip


def _reader(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which a row begins, its cells)."""
    before = csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader((text for _, text in source_lines(path)), delimiter=delimiter, strict=True)
    line = 1
    try:
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            yield line, cells
    except csv.Error as error:
        fix = 'a cell with quotes is written "like ""this"""'
        raise SkillError(f"not valid CSV: {error}", where=path, line=line, fix=fix) from error
    finally:
        csv.field_size_limit(before)


def _found_delimiter(path: Path, columns: Mapping[str, str]) -> str:
    for delimiter in DELIMITERS:
        first = next(_reader(path, delimiter), (1, []))[1]
        if set(columns.values()) <= {name.strip() for name in first}:
            return delimiter
    return DELIMITERS[0]


def _header(cells: list[str], path: Path, columns: Mapping[str, str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if not any(header):
        raise SkillError("no header", where=path, line=1, fix="the first line names the columns")
    for column in columns.values():
        if header.count(column) != 1:
            what = f"no column {column!r}" if column not in header else f"two columns {column!r}"
            raise SkillError(what, where=path, line=1, fix=f"columns: {', '.join(header)}")
    return header
