"""Files that somebody else made, read line by line: encodings, sizes and what is no text are told with their line.

A byte order mark of UTF-8 is skipped (spreadsheets write it); UTF-16, UTF-32 and NUL characters are refused. Nothing is
held but one line, so a file may be of any size as long as ``limit`` stops it.
"""

from __future__ import annotations

import codecs
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rft_ilab.errors import SkillError
from rft_ilab.skills.reading import has_lone_surrogate, parse_json
from rft_ilab.skills.tasks import MAX_BYTES

MAX_LINE_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 1 << 20
MAX_ROWS = 200_000
WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
AS_UTF8 = "save the file as UTF-8"


def source_lines(path: Path, limit: int | None = None) -> Iterator[tuple[int, str]]:
    """(line, text) of every line, line ends kept; at most ``limit`` lines that are not blank. Raises SkillError.

    Without ``limit`` a file of more than 200,000 lines, or with more text than a skill may have, is an error.
    """
    taken = size = 0
    with _opened(path) as file:
        number = 0
        while taken != limit and (data := file.readline(MAX_LINE_BYTES + 1)):
            number += 1
            if len(data) > MAX_LINE_BYTES:
                fix = "is it the right file, with one row a line?"
                raise SkillError(f"a line of more than {MAX_LINE_BYTES >> 20} MB", where=path, line=number, fix=fix)
            text = _decoded(data, path, number)
            if text.strip():
                taken, size = taken + 1, size + len(data)
                if taken > MAX_ROWS or size > MAX_BYTES:
                    what = f"more than {MAX_ROWS:,} lines, or {MAX_BYTES >> 20} MB of them"
                    raise SkillError(what, where=path, line=number, fix="take the first of them with --limit")
            yield number, text


def source_json(path: Path) -> Any:
    """The value of a JSON file of at most 1 MB, strictly read. Raises SkillError with the line."""
    with _opened(path) as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise SkillError(f"more than {MAX_DOCUMENT_BYTES >> 20} MB", where=path, fix="is it the right file?")
    text = _decoded(data, path, 1)
    try:
        value = parse_json(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise SkillError(f"not valid JSON: {error}", where=path, line=line, fix="write one JSON value") from error
    if has_lone_surrogate(value):
        raise SkillError("a string holds half a character (lone surrogate)", where=path, line=1)
    return value


def _opened(path: Path) -> BinaryIO:
    """The file, behind a byte order mark of UTF-8."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SkillError("is not a regular file", where=path)
        file = path.open("rb")
    except FileNotFoundError as error:
        raise SkillError("missing file", where=path) from error
    except (OSError, ValueError) as error:
        raise SkillError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=path) from error
    head = file.read(4)
    if head.startswith(WIDE):
        file.close()
        raise SkillError("is UTF-16 or UTF-32, not UTF-8", where=path, line=1, fix=AS_UTF8)
    file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
    return file


def _decoded(data: bytes, path: Path, first: int) -> str:
    """Text of a line, or of a document that begins at line ``first``."""

    def line(index: int) -> int:
        return first + data.count(b"\n", 0, index)

    if (at := data.find(b"\0")) >= 0:
        raise SkillError("holds a NUL byte, so it is no text in UTF-8", where=path, line=line(at), fix=AS_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SkillError("not valid UTF-8", where=path, line=line(error.start), fix=AS_UTF8) from error
