"""The draft of an OpenAI job: rows of two files, one grader, and the field that holds the right answer."""

from __future__ import annotations

from pathlib import Path

from rft_ilab.errors import SkillError
from rft_ilab.pipeline.importing import description_of, find_reference
from rft_ilab.skills.importing.draft import (
    Draft,
    ImportRefused,
    Problems,
    SourceRow,
    attribution,
    common_system,
    grouped,
    train_or_val,
)
from rft_ilab.skills.importing.openai_job import read_job_grader, read_job_rows


def draft_job(
    taxonomy: Path,
    name: str,
    grader_file: Path,
    train_file: Path,
    val_file: Path | None,
    *,
    val_split: str,
    reference: str | None,
    description: str | None,
    limit: int | None,
    created_by: str,
    licence: str,
) -> Draft:
    """Read the files of a job. Raises SkillError, ImportRefused.

    Rows that name no split: without a validation file it is drawn; with one its rows become ``val_split``, and those of
    the training file train or, where the validation file is to test, one group in eight val.
    """
    grader, notes = read_job_grader(grader_file)
    problems = Problems()
    train = list(read_job_rows(train_file, problems, limit))
    held = list(read_job_rows(val_file, problems, limit)) if val_file else []
    problems.stop()
    if not train:
        raise ImportRefused([SkillError("no rows", where=train_file, fix="is it the right file?")])
    rows = [*train, *held]
    shared = common_system([one.row for one in rows])
    text = description_of(rows, description, shared)
    if shared == text:
        train, held = ([one.having(messages=one.row["messages"][1:]) for one in part] for part in (train, held))
    draft = Draft(
        description=text, rows=[*train, *held], grader=grader, blame=grader_file, created_by=created_by, notes=notes,
        attribution=attribution(f"Tasks of {name}", [f for f in (train_file, val_file) if f], licence, created_by),
    )  # fmt: skip
    find_reference(draft, taxonomy, name, reference)
    if val_file:
        draft.rows = _split(draft.rows[: len(train)], draft.rows[len(train) :], val_split, draft.notes)
    return draft


def _split(train: list[SourceRow], held: list[SourceRow], val_split: str, notes: list[str]) -> list[SourceRow]:
    """Every row with a split; see :func:`draft_job`."""
    train, alike = grouped(train)
    drawn = [one for one in train if "split" not in one.row]
    train = [
        one if "split" in one.row else one.having(split=train_or_val(one.row) if val_split == "test" else "train")
        for one in train
    ]
    free = sum("split" not in one.row for one in held)
    held = [one if "split" in one.row else one.having(split=val_split) for one in held]
    if drawn or free:
        notes.append(
            f"{len(drawn)} rows of the training file were split into train and val, "
            f"{free} of the validation file became {val_split}"
            if val_split == "test"
            else f"{free} rows of the validation file became val; there is no test split"
        )
    if alike:
        notes.append(f"{alike} rows that differ by case, numbers or signs only were put into groups")
    return [*train, *held]
