"""The draft of a table: its rows, and a grader that is named, in a file, or proposed by the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.errors import SkillError
from rft_ilab.grading.propose import KINDS, grader_of_kind, propose
from rft_ilab.pipeline.importing import description_of
from rft_ilab.skills.importing.csv_file import read_table
from rft_ilab.skills.importing.draft import Draft, ImportRefused, Problems, attribution
from rft_ilab.skills.importing.openai_job import read_job_grader


def draft_table(
    name: str,
    table: Path,
    columns: Mapping[str, str],
    *,
    grader: str | None,
    delimiter: str | None,
    description: str | None,
    limit: int | None,
    created_by: str,
    licence: str,
) -> Draft:
    """Read a table. ``grader`` is one of ``KINDS``, a file, or None: it is proposed. Raises SkillError."""
    problems = Problems()
    rows = list(read_table(table, columns, problems, limit, delimiter))
    problems.stop()
    if not rows:
        raise ImportRefused([SkillError("no rows below the header", where=table, line=1)])
    text = description_of(rows, description, None)
    chosen, blame, notes = choose_grader(grader, [one.row["reference"] for one in rows], name, table)
    return Draft(
        description=text, rows=rows, grader=chosen, blame=blame, created_by=created_by, notes=notes,
        attribution=attribution(f"Tasks of {name}", [table], licence, created_by),
    )  # fmt: skip


def choose_grader(
    given: str | None, references: Sequence[str], name: str, source: Path
) -> tuple[Mapping[str, Any], Path, list[str]]:
    """The grader, the file to blame for it, and what is to be said of the choice. Raises SkillError, ImportRefused."""
    short = name.rsplit("/", 1)[-1]
    if given is not None and given in KINDS:
        return grader_of_kind(given, references, short), source, []
    if given:
        grader, notes = read_job_grader(Path(given))
        return grader, Path(given), notes
    found = propose(references, short)
    if found is None:
        what = "the answers are free text: no program can tell that another wording is right"
        fix = "shorten them to what can be checked, or write a grader: --grader FILE; see docs/graders.md"
        raise ImportRefused([SkillError(what, where=source, fix=fix)])
    return found.grader, source, [f"grader {found.grader['type']}: {found.why}; choose another with --grader"]
