"""Handler of :mod:`.bounded_child` for ``sql``: two queries on one SQLite database. Imports nothing of the project.

SQLite is bounded from inside as far as it goes (authorizer, limits, a clock between its steps), but not while it
prepares a statement: thirty nested WITHs that each name the last one twice take all memory. Hence the process.
"""

from __future__ import annotations

import math
import re
import resource
import signal
import sqlite3
import time
from itertools import zip_longest
from typing import Any

MEMORY_BYTES = 256 << 20
MAX_ROWS = 10_000
SCHEMA_CELL = 1_000_000
STEPS = 10_000  # between two looks at the clock
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 50_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
}
READING = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE))
# Not only code and files: a query that gives other rows each time cannot be compared.
REFUSED = frozenset(("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "random", "randomblob"))
FOREIGN = frozenset((sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_CREATE_VTABLE))
QUERY = re.compile(r"(?:\s|--[^\n]*+(?:\n|$)|/\*(?:(?!\*/).)*+\*/|\()*+(?:select|with|values)\b", re.I | re.S)
# Texts, quoted names and comments, which are skipped; brackets, for the depth; words.
TOKEN = re.compile(r"""'(?:[^']|'')*+'?|"[^"]*+"?|`[^`]*+`?|\[[^\]]*+\]?|--[^\n]*+|/\*(?:(?!\*/).)*+|[()]|\w++""", re.S)

Row = tuple[Any, ...]


class Unfit(Exception):
    """Says what is wrong with a query."""


def prepare() -> None:
    """sqlite3 is loaded above."""


def warm(job: dict[str, Any]) -> None:
    """Nothing is kept between jobs: a database is built for each."""


def reference(job: dict[str, Any]) -> tuple[sqlite3.Connection, list[Row], bool]:
    """The database, the expected rows, and whether their order counts."""
    _clock(job["seconds"])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES if hard < 0 else min(MEMORY_BYTES, hard), hard))
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("PRAGMA temp_store = MEMORY")  # no file may be written, not even for a large sort
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, SCHEMA_CELL)
    database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    database.set_authorizer(_building)
    try:
        database.executescript(job["schema"])
    except sqlite3.Error as error:
        raise ValueError(f"the schema fails: {error}") from error
    for category, value in LIMITS.items():
        database.setlimit(category, value)
    database.set_authorizer(_reading)
    if job["rows"] is not None:
        return database, [tuple(row) for row in job["rows"]], bool(job["ordered"])
    try:
        rows = rows_of(database, job["gold"], MAX_ROWS, job["seconds"])
    except Unfit as error:
        raise ValueError(f"the reference query fails: {error}") from error
    if not rows:
        raise ValueError("the reference query gives no rows, as any empty query does")
    if len(rows) > MAX_ROWS:
        raise ValueError(f"the reference query gives more than {MAX_ROWS} rows")
    return database, rows, ends_in_order(job["gold"]) if job["ordered"] is None else job["ordered"]


def score(expected: tuple[sqlite3.Connection, list[Row], bool], job: dict[str, Any]) -> tuple[float, str | None, str]:
    database, wanted, ordered = expected
    _clock(job["seconds"])
    try:
        found = rows_of(database, job["query"], len(wanted), job["seconds"])
    except Unfit as error:
        return 0.0, None, str(error)
    answer = repr(found[:3])[:200]
    problem = difference(found, wanted, ordered)
    return (0.0, answer, problem) if problem else (1.0, answer, "right")


def _clock(seconds: float) -> None:
    """End the process if SQLite does not come back to its own clock (while it prepares, within one function)."""
    signal.setitimer(signal.ITIMER_PROF, seconds + 0.3)


def _building(action: int, *details: str | None) -> int:
    refused = action in FOREIGN or (action == sqlite3.SQLITE_FUNCTION and details[1] in REFUSED)
    unknown = action == sqlite3.SQLITE_PRAGMA and details[0] != "foreign_keys"  # with which dumps begin
    return sqlite3.SQLITE_DENY if refused or unknown else sqlite3.SQLITE_OK


def _reading(action: int, *details: str | None) -> int:
    allowed = action in READING or (action == sqlite3.SQLITE_FUNCTION and details[1] not in REFUSED)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def rows_of(database: sqlite3.Connection, query: str, most: int, seconds: float) -> list[Row]:
    """The rows of one reading query, at most ``most`` and one. Raises Unfit."""
    if not query.strip():
        raise Unfit("no query")
    if not QUERY.match(query):
        raise Unfit("not a SELECT, WITH or VALUES")
    end = time.process_time() + seconds
    database.set_progress_handler(lambda: time.process_time() > end, STEPS)
    try:
        cursor = database.execute(query)
        if cursor.description is None:
            raise Unfit("not a query")
        return cursor.fetchmany(most + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:  # ValueError: lone surrogates, a null character
        if time.process_time() > end:
            raise Unfit(f"runs longer than {seconds:g} s") from error
        raise Unfit(str(error)) from error
    except (MemoryError, OverflowError) as error:
        raise Unfit("takes too much memory") from error


def ends_in_order(query: str) -> bool:
    """Whether there is an ORDER BY outside of all brackets.

    >>> ends_in_order("SELECT * FROM (SELECT 1 ORDER BY 1) -- ORDER BY x"), ends_in_order("SELECT a FROM t order by a")
    (False, True)
    """
    depth, last = 0, ""
    for match in TOKEN.finditer(query):
        word = match[0].lower()
        depth += (word == "(") - (word == ")")
        if depth == 0 and (last, word) == ("order", "by"):
            return True
        last = word
    return False


def difference(found: list[Row], wanted: list[Row], ordered: bool) -> str:
    """What is wrong with the rows; empty if nothing is."""
    if found and len(found[0]) != len(wanted[0]):
        return f"{len(found[0])} columns, expected {len(wanted[0])}"
    if not ordered:
        found, wanted = sorted(found, key=_key), sorted(wanted, key=_key)
    if len(found) != len(wanted):
        return f"{'more rows than' if len(found) > len(wanted) else f'{len(found)} rows, expected'} {len(wanted)}"
    for number, (row, right) in enumerate(zip_longest(found, wanted), 1):
        if not all(_same(a, b) for a, b in zip(row, right, strict=True)):
            where = f"row {number}: " if ordered else ""
            return f"{where}{repr(row)[:80]}, expected {repr(right)[:80]}"
    return ""


def _key(row: Row) -> tuple[Any, ...]:
    """Sorts rows that are equal up to rounding alike: exact cells first, numbers to nine digits."""
    exact = tuple("" if _is_number(cell) else repr(cell) for cell in row)
    return exact, tuple(cell if isinstance(cell, int) else float(f"{cell:.9g}") for cell in row if _is_number(cell))


def _same(a: Any, b: Any) -> bool:
    if type(a) is type(b):
        return bool(a == b) or (isinstance(a, float) and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9))
    return _is_number(a) and _is_number(b) and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float)
