"""``sql``: the answer's query gives the same rows as the reference, on SQLite and the data of ``schema``.

The reference is a query, or the expected rows as JSON (``[["Ada", 3], ["Bob", null]]``). Rows are compared as a
multiset, or in order if ``ordered``; that is the default when the reference query itself ends in ORDER BY. Names of
columns do not count, their number and order do. Whole numbers are compared exactly, others
within 1e-9 (relative or absolute); 3 and 3.0 are the same; a text is never equal to a number.

The answer is one SELECT, WITH or VALUES, perhaps in a fenced block. It runs in a process of its own that can be
killed, may only read, gets ``seconds`` of processor time and 256 MB, and has no function that is random, loads code
or opens files. Whatever it does wrong is a 0. A schema or reference that fails, or gives no rows (every empty query
would be right), is an error. Rows are counted up to 10,000, cells up to 100 kB, queries up to 20 kB.

Not covered: whether the query means the same (one that spells out the right rows passes: put rows into the schema
that a lucky query gets wrong), ties under ORDER BY that the reference breaks by chance, other dialects.
"""

from __future__ import annotations

from typing import Any, ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.bounded import bounded
from rft_ilab.grading.checks.fence import fenced
from rft_ilab.grading.registry import FLAG, NUMBER, TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.template import Template
from rft_ilab.skills.reading import parse_json

MAX_QUERY = 20_000
MAX_SCHEMA = 1_000_000
MAX_SECONDS = 5.0  # the process that runs it is given up after 20 s of wall clock


class SqlCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT, "schema": TEXT}
    OPTIONAL: ClassVar[Keys] = {"ordered": FLAG, "seconds": NUMBER}

    def __init__(
        self, input: str, reference: str, schema: str, ordered: bool | None = None, seconds: float = 1.0
    ) -> None:
        if not 0 < seconds <= MAX_SECONDS:
            raise GraderError(f"seconds {seconds}", fix=f"above 0, at most {MAX_SECONDS:g}")
        self._input, self._reference, self._schema = Template(input), Template(reference), Template(schema)
        self._ordered, self._seconds = ordered, float(seconds)

    def mark_one(self, sample: Sample) -> Mark:
        schema, reference = self._schema.render(sample), self._reference.render(sample).strip()
        if len(schema) > MAX_SCHEMA or len(reference) > MAX_SCHEMA:
            return Mark.failed(f"the schema or the reference is longer than {MAX_SCHEMA} characters")
        rows = _rows(reference) if reference.startswith("[") else None
        query = fenced(self._input.render(sample)).strip()
        if len(query) > MAX_QUERY:
            return Mark(0.0, None, f"longer than {MAX_QUERY} characters")
        return bounded("sql_child.py").ask(
            query=query, schema=schema, gold=reference, rows=rows, ordered=self._ordered, seconds=self._seconds
        )


def _rows(text: str) -> list[list[Any]]:
    """Expected rows. Raises GraderError, which is an error of the task.

    >>> _rows('[["Ada", true], [null, 1.5]]')
    [['Ada', 1], [None, 1.5]]
    """
    try:
        rows = parse_json(text)
    except ValueError as error:
        raise GraderError(f"the reference begins as JSON and is none: {error}") from error
    if not all(isinstance(row, list) and row and not any(isinstance(x, list | dict) for x in row) for row in rows):
        raise GraderError("the reference is no list of rows", fix='write [["Ada", 3], ["Bob", null]]')
    if not rows or len({len(row) for row in rows}) != 1:
        raise GraderError("the rows of the reference must be one or more, of equal length")
    if any(isinstance(cell, int) and abs(cell) >= 2**63 for row in rows for cell in row):
        raise GraderError("the rows of the reference hold an integer that SQLite cannot")
    return [[int(cell) if isinstance(cell, bool) else cell for cell in row] for row in rows]
