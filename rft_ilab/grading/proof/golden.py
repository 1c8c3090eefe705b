"""Does a grader do what its author says? Two proofs without a model; :mod:`.battery` tries what nobody says.

Gold: every reference passes its own grader. Golden cases: a shared grader scores the samples beside it as they say.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rft_ilab.errors import GraderError, RftError
from rft_ilab.grading.engine import SkillGrader, grader_of
from rft_ilab.grading.sample import shown
from rft_ilab.skills.reading import read_text
from rft_ilab.skills.tasks import parse_row
from rft_ilab.skills.tree import expand, shared_grader
from rft_ilab.types import Grade, Task

MAX_ALIKE = 5
# A grader that never returns is stopped after 5 s, every time: hundreds of references would take an hour.
FIRST, CHUNK = 3, 128
PATIENCE = 10.0  # seconds
NO_ANSWER = "the grader gives no score"
MAX_CASES_BYTES = 8 << 20
Numbered = tuple[int, Task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to repair. ``line`` is 1-based; ``fix`` says what to do."""

    severity: Literal["error", "warning"]
    message: str
    file: Path
    line: int | None = None
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        text = f"{place}: {self.severity}: {self.message}" + (f" ({self.fix})" if self.fix else "")
        # Names of files, fields and classes are anybody's: they shall not write lines or colours of their own.
        return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

    @classmethod
    def of(cls, error: RftError, file: Path) -> Finding:
        where = file if error.where is None else Path(error.where)
        return cls(severity="error", message=error.what, file=where, line=error.line, fix=error.fix)


class NoAnswer(GraderError):
    """A grader failed on one text after the other, and took its time. ``grades``: what it said until then."""

    def __init__(self, grades: Sequence[Grade], seconds: float) -> None:
        what = f"{NO_ANSWER}, the last {FIRST} times in a row and after {seconds:.0f} s"
        super().__init__(f"{what}; nothing else was tried", fix="find out what it waits for")
        self.grades, self.seconds = list(grades), seconds


def patiently(grader: SkillGrader, pairs: Sequence[tuple[Task, str]], first: int = CHUNK) -> list[Grade]:
    """The grades of texts, asked for in chunks, the first one of ``first`` texts. Raises NoAnswer.

    Given up is where a chunk takes longer than :data:`PATIENCE` and ends with :data:`FIRST` errors.
    """
    grades: list[Grade] = []
    while len(grades) < len(pairs):
        started = time.monotonic()
        size = CHUNK if grades else first
        part = grader.grade_texts(pairs[len(grades) : len(grades) + size])
        grades += part
        seconds = time.monotonic() - started
        if seconds > PATIENCE and len(part) >= FIRST and all(grade.error for grade in part[-FIRST:]):
            raise NoAnswer(grades, seconds)
    return grades


def gold(grader: SkillGrader, tasks: Sequence[Numbered], file: Path) -> tuple[list[Finding], list[Numbered]]:
    """Findings for the tasks whose reference is not accepted, and those whose is. Tasks after :class:`NoAnswer` are
    neither, and one finding says so."""
    refused: list[Finding] = []
    accepted: list[Numbered] = []
    untried: list[Finding] = []
    try:
        grades = patiently(grader, [(task, task.reference) for _, task in tasks], FIRST)
    except NoAnswer as error:
        grades, left = error.grades, tasks[len(error.grades) :]
        if left:
            message = f"{len(left)} more references were not tried, the next one here: {error.what.partition(';')[0]}"
            untried = [Finding(severity="error", message=message, file=file, line=left[0][0], fix=error.fix)]
    for (line, task), grade in zip(tasks, grades, strict=False):
        if grade.error is not None:
            message = f"the grader fails on the reference: {grade.error}"
        elif not grade.passed:
            message = f"the grader refuses the reference {shown(task.reference)}: {grade.reason}"
        else:
            accepted.append((line, task))
            continue
        fix = "correct the reference, or the grader"
        refused.append(Finding(severity="error", message=message, file=file, line=line, fix=fix))
    rest = refused[MAX_ALIKE:]
    if rest:
        message = f"{len(rest)} more references are refused, the next one here"
        rest = [dataclasses.replace(rest[0], message=message)]
    return refused[:MAX_ALIKE] + rest + untried, accepted


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One line of a ``.cases.jsonl``; ``score`` None means that the grader must fail on it."""

    line: int
    sample: str
    item: dict[str, Any]
    score: float | None

    @property
    def task(self) -> Task:
        id, text = f"case-{self.line}", self.sample
        return Task(id=id, skill="", messages=(), reference=text, item=self.item, group="", split="train")


def cases_file(grader: Path) -> Path:
    return grader.with_name(f"{grader.stem}.cases.jsonl")


def read_cases(file: Path) -> tuple[list[GoldenCase], list[Finding]]:
    """The golden cases of a ``.cases.jsonl``, and what is wrong with its other lines. Raises SkillError."""
    good, findings = [], []
    for line, text in enumerate(read_text(file, MAX_CASES_BYTES).split("\n"), 1):
        if not text.strip():
            continue
        try:
            row = parse_row(text, file, line)
        except RftError as error:
            findings.append(Finding.of(error, file))
            continue
        if problem := _case_problem(row):
            fix = '{"sample": "...", "item": {...}, "score": 1.0} or "error": true'
            findings.append(Finding(severity="error", message=problem, file=file, line=line, fix=fix))
        else:
            good.append(GoldenCase(line, row["sample"], row["item"], row.get("score")))
    return good, findings


def golden(file: Path, graders: Path, asks: Callable[[Mapping[str, Any]], bool]) -> Iterator[Finding]:
    """Findings of one shared grader: whether it loads, and whether its golden cases hold; these are not tried if it
    ``asks`` a model or a server."""
    path = cases_file(file)
    try:
        config = expand(shared_grader(file), file, graders)
        grader = grader_of(config, "", file)
        if not path.exists():
            fix = 'one {"sample": "...", "item": {...}, "score": 1.0} a line'
            yield Finding(severity="warning", message=f"no golden cases: {path.name} is missing", file=file, fix=fix)
            return
        cases, findings = read_cases(path)
    except RftError as error:
        yield Finding.of(error, file)
        return
    yield from findings
    if asks(config):
        message = "golden cases not tried here: the grader asks a model or a server"
        yield Finding(severity="warning", message=message, file=path, fix=f"ilab rft grader-test --grader {file}")
        return
    yield from broken_cases(grader, cases, path)


def broken_cases(grader: SkillGrader, cases: Sequence[GoldenCase], file: Path) -> Iterator[Finding]:
    """Findings for the golden cases that do not hold."""
    try:
        grades = patiently(grader, [(case.task, case.sample) for case in cases])
    except NoAnswer as error:
        grades = error.grades
        yield Finding.of(error, file)
    for case, grade in zip(cases, grades, strict=False):
        if grade.score != case.score:
            wanted = "an error" if case.score is None else f"{case.score:g}"
            got = "an error" if grade.score is None else f"{grade.score:g}"
            message = f"golden case gives {got}, not {wanted}: {grade.error or grade.reason}"
            fix = "correct the case or the grader"
            yield Finding(severity="error", message=message, file=file, line=case.line, fix=fix)


def _case_problem(row: dict[str, Any]) -> str:
    if unknown := set(row) - {"sample", "item", "score", "error", "note"}:
        return f"unknown key {min(unknown)!r} in a golden case"
    if not isinstance(row.get("sample"), str) or not isinstance(row.get("item"), dict):
        return "a golden case needs a sample (text) and an item (object)"
    score = row.get("score")
    if ("score" in row) == ("error" in row) or row.get("error", True) is not True:
        return 'a golden case has either a score or "error": true'
    if "score" in row and (isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1):
        return "the score of a golden case must be a number from 0 to 1"
    return ""
