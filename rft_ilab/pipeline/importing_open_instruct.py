"""The draft of a skill from the rows of an Open-Instruct data set that name the same verifiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.errors import SkillError
from rft_ilab.pipeline.importing import description_of, load_grader
from rft_ilab.scaleout.openinstruct.mapping import Mapped, combined
from rft_ilab.scaleout.openinstruct.rlvr import RlvrRow, read_rlvr, rlvr_files
from rft_ilab.skills.importing.draft import (
    Draft,
    ImportRefused,
    SourceRow,
    attribution,
    common_system,
    train_or_val,
)
from rft_ilab.skills.tasks import task_from_row
from rft_ilab.types import Skill, digest

Kind = tuple[str, ...]  # the verifiers of a row
NO_ANSWER = "no answer that is known to be right: end messages with one, or name its column with --answer"


def read_kinds(path: Path, answer: str | None, limit: int | None) -> dict[Kind, list[RlvrRow]]:
    """The rows of a data set by their verifiers, most frequent first. Raises SkillError; no row is an error."""
    kinds: dict[Kind, list[RlvrRow]] = {}
    files = rlvr_files(path)
    for file in files:
        for row in read_rlvr(file, answer, limit):
            kinds.setdefault(row.verifiers, []).append(row)
    if not kinds:
        raise SkillError("no rows", where=path, fix="is it the right file?")
    return dict(sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])))


def draft_kind(
    taxonomy: Path,
    name: str,
    kind: Kind,
    rows: Sequence[RlvrRow],
    *,
    description: str | None,
    created_by: str,
    licence: str,
) -> Draft:
    """The skill of the rows that name the verifiers ``kind``. Raises ImportRefused if none of them makes a task.

    A row whose label cannot be used, or whose answer the grader does not accept, is left out; ``notes`` say how many
    there were, why, and where the first is.
    """
    try:
        mapped = combined(kind)
    except ValueError as error:
        fix = "import other verifiers of this data set with --to VERIFIER=SKILL"
        raise ImportRefused([SkillError(str(error), where=rows[0].file, line=rows[0].line, fix=fix)]) from error
    left_out: dict[str, list[str]] = {}
    made: list[SourceRow] = []
    asked: dict[str, str] = {}
    # What is to judge wins: a prompt that is in the test split is in no other.
    for row in sorted(rows, key=lambda row: ("test", "val", "train", None).index(row.split)):
        try:
            one = _task_row(row, mapped)
            first = asked.setdefault(digest(list(row.messages)), f"{row.file}:{row.line}")
            if first != f"{row.file}:{row.line}":
                raise ValueError("the same messages as a row before it")
        except ValueError as error:
            left_out.setdefault(str(error), []).append(f"{row.file}:{row.line}")
        else:
            made.append(one)
    draft = Draft(
        description=description_of(made, description, mapped.task) if made else "", rows=_split(made, rows),
        grader=mapped.grader, blame=rows[0].file, created_by=created_by,
        attribution=attribution(f"Tasks of {name}", sorted({row.file for row in rows}), licence, created_by),
    )  # fmt: skip
    if made:
        _drop_refused(draft, taxonomy, name, left_out)
        shared = common_system([one.row for one in draft.rows]) if draft.rows else None
        if shared and description in (None, shared):
            draft.description = shared
            draft.rows = [one.having(messages=one.row["messages"][1:]) for one in draft.rows]
    if not draft.rows:
        problems = [
            SkillError(f"{reason} ({len(places)} rows)", where=places[0]) for reason, places in left_out.items()
        ]
        raise ImportRefused(problems)
    draft.notes += [
        f"{len(places)} rows left out: {reason} (first: {places[0]})"
        for reason, places in sorted(left_out.items(), key=lambda item: -len(item[1]))
    ]
    return draft


def _task_row(row: RlvrRow, mapped: Mapped) -> SourceRow:
    """Raises ValueError with why there is no task in it."""
    gold = mapped.gold(row.labels)
    if row.answer is not None:
        reference = row.answer
    elif mapped.reference is not None:
        reference = mapped.reference(gold)
    else:
        raise ValueError(NO_ANSWER)
    task: dict[str, Any] = {"messages": [dict(turn) for turn in row.messages], "reference": reference, "gold": gold}
    if row.split:
        task["split"] = row.split
    return SourceRow(row=task, file=row.file, line=row.line)


def _split(made: list[SourceRow], rows: Sequence[RlvrRow]) -> list[SourceRow]:
    """Without a test file splits are drawn; beside one, rows of the other files train, or are val where no file is."""
    given = Counter[str | None](row.split for row in rows)
    if not given["test"] and not given["val"]:
        return [_without_split(one) for one in made]

    def split(one: SourceRow) -> str:
        own = str(one.row.get("split", "train"))
        return train_or_val(one.row) if own == "train" and not given["val"] else own

    return [one.having(split=split(one)) for one in made]


def _without_split(one: SourceRow) -> SourceRow:
    row: Mapping[str, Any] = {key: value for key, value in one.row.items() if key != "split"}
    return SourceRow(row=row, file=one.file, line=one.line)


def _drop_refused(draft: Draft, taxonomy: Path, name: str, left_out: dict[str, list[str]]) -> None:
    """Leave out the rows whose reference the grader does not accept."""
    grader = load_grader(draft, taxonomy)
    skill = Skill(
        name=name, directory=Path(), description=draft.description, seeds=(), grader=draft.grader, grader_digest=""
    )  # fmt: skip
    tasks = [task_from_row(skill, dict(one.row), one.file, one.line) for one in draft.rows]
    grades = grader.grade_texts([(task, task.reference) for task in tasks])
    kept = []
    for one, grade in zip(draft.rows, grades, strict=True):
        if grade.passed:
            kept.append(one)
        else:
            why = "the grader fails on the answer" if grade.error else "the grader does not accept the answer"
            left_out.setdefault(why, []).append(one.place)
    draft.rows = kept
