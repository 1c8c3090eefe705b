"""Does a grader do its work? Three proofs without a model.

Gold: every reference passes its own grader. Exploits: what no honest answer looks like does not pass
(nor makes the grader fail: an error is masked out of training, so it would be a way to dodge a bad
score). Golden cases: a shared grader scores the samples beside it as they say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rft_ilab.errors import RftError
from rft_ilab.grading.engine import SkillGrader, grader_of
from rft_ilab.grading.sample import shown
from rft_ilab.skills.reading import read_text
from rft_ilab.skills.tasks import class_of, parse_row
from rft_ilab.skills.tree import expand, graders_directory, shared_grader
from rft_ilab.types import Grade, Rollout, Task

MAX_PROBED = 64
# An echoed prompt or another task's answer may be right by chance now and then; above this share it is the grader.
CHANCE = 0.1
MAX_ALIKE = 5
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
        return f"{place}: {self.severity}: {self.message}" + (f" ({self.fix})" if self.fix else "")

    @classmethod
    def of(cls, error: RftError, file: Path) -> Finding:
        where = file if error.where is None else Path(error.where)
        return cls(severity="error", message=error.what, file=where, line=error.line, fix=error.fix)


def gold(grader: SkillGrader, tasks: Sequence[Numbered], file: Path) -> tuple[list[Finding], list[Numbered]]:
    """Findings for the tasks whose reference is not accepted, and the other tasks."""
    refused: list[Finding] = []
    accepted: list[Numbered] = []
    for (line, task), grade in zip(tasks, _grade(grader, tasks, lambda t: t.reference), strict=True):
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
    return refused[:MAX_ALIKE] + rest, accepted


def exploits(grader: SkillGrader, tasks: Sequence[Numbered], labels: Sequence[str], file: Path) -> Iterator[Finding]:
    """Findings for answers that must not pass but do, or that make the grader fail.

    ``labels`` are those of a label grader; without, the classes of the tasks are taken. At most 64 tasks,
    evenly spread, are probed.
    """
    probed = [tasks[i * len(tasks) // min(len(tasks), MAX_PROBED)] for i in range(min(len(tasks), MAX_PROBED))]
    classes = class_of([task for _, task in tasks])
    listed = list(labels) or (sorted(set(classes.values())) if classes else [])
    others = _others([task for _, task in tasks])
    probes: list[tuple[str, float, Sequence[Numbered], Callable[[Task], str]]] = [
        ("an empty answer", 0.0, probed, lambda task: ""),
        ("a blank answer", 0.0, probed, lambda task: " \n"),
        ("a zero-width answer", 0.0, probed, lambda task: "\u200b"),
        ("an echo of the prompt", CHANCE, probed, lambda task: task.messages[-1].content),
        ("another task's reference", CHANCE, [p for p in probed if p[1].id in others], lambda task: others[task.id]),
    ]
    if len(listed) > 1:
        probes.append(("a list of all labels", 0.0, probed, lambda task: ", ".join(listed)))
        probes.append(("the list turned round", 0.0, probed, lambda task: " ".join(reversed(listed))))
    for name, tolerated, chosen, answer in probes:
        grades = _grade(grader, chosen, answer)
        yield from _probe(name, tolerated, chosen, grades, answer, file)


def _probe(
    name: str,
    tolerated: float,
    chosen: Sequence[Numbered],
    grades: Sequence[Grade],
    answer: Callable[[Task], str],
    file: Path,
) -> Iterator[Finding]:
    failed = [(line, grade) for (line, _), grade in zip(chosen, grades, strict=True) if grade.error is not None]
    if failed:
        line, grade = failed[0]
        message = f"the grader fails on {name} ({len(failed)} of {len(chosen)} tasks): {grade.error}"
        fix = "score a malformed answer 0; an error is for what is no fault of the answer"
        yield Finding(severity="error", message=message, file=file, line=line, fix=fix)
    passed = [(line, task) for (line, task), grade in zip(chosen, grades, strict=True) if grade.passed]
    if passed:
        line, task = passed[0]
        severity: Literal["error", "warning"] = "error" if len(passed) > tolerated * len(chosen) else "warning"
        message = f"{name} passes ({len(passed)} of {len(chosen)} tasks), here {shown(answer(task))}"
        yield Finding(severity=severity, message=message, file=file, line=line, fix="make the grader refuse it")


def _others(tasks: Sequence[Task]) -> dict[str, str]:
    """Task id -> the reference of the next task (in file order, from the middle on) that has another one."""
    others = {}
    for index, task in enumerate(tasks):
        start = index + len(tasks) // 2
        for step in range(len(tasks)):
            other = tasks[(start + step) % len(tasks)].reference
            if other.strip() != task.reference.strip():
                others[task.id] = other
                break
        else:
            break  # all references are the same
    return others


def _grade(grader: SkillGrader, tasks: Sequence[Numbered], answer: Callable[[Task], str]) -> list[Grade]:
    return grader.grade([(task, rollout(task, answer(task))) for _, task in tasks])


def rollout(task: Task, completion: str) -> Rollout:
    """A completion that no model made."""
    return Rollout(task_id=task.id, index=0, policy_id="selftest", completion=completion, stop="eos")


def golden(file: Path, taxonomy: Path) -> Iterator[Finding]:
    """Findings of one shared grader: whether it loads, and whether its golden cases hold."""
    cases = file.with_name(f"{file.stem}.cases.jsonl")
    try:
        config = expand(shared_grader(file), file, graders_directory(taxonomy))
        grader = grader_of(config, "", file)
        if not cases.exists():
            fix = 'one {"sample": "...", "item": {...}, "score": 1.0} a line'
            yield Finding(severity="warning", message=f"no golden cases: {cases.name} is missing", file=file, fix=fix)
            return
        lines = [(n, text) for n, text in enumerate(read_text(cases, MAX_CASES_BYTES).split("\n"), 1) if text.strip()]
    except RftError as error:
        yield Finding.of(error, file)
        return
    good: list[tuple[int, dict[str, Any], Task]] = []
    for line, text in lines:
        try:
            row = parse_row(text, cases, line)
        except RftError as error:
            yield Finding.of(error, cases)
            continue
        if problem := _case_problem(row):
            fix = '{"sample": "...", "item": {...}, "score": 1.0} or "error": true'
            yield Finding(severity="error", message=problem, file=cases, line=line, fix=fix)
            continue
        good.append((line, row, _case_task(row["item"], line)))
    grades = grader.grade([(task, rollout(task, row["sample"])) for _, row, task in good])
    for (line, row, _), grade in zip(good, grades, strict=True):
        wanted = "an error" if row.get("error") else f"{row['score']:g}"
        got = "an error" if grade.error is not None else f"{grade.score:g}"
        if (row.get("error") and grade.error is None) or (not row.get("error") and grade.score != row["score"]):
            message = f"golden case gives {got}, not {wanted}: {grade.error or grade.reason}"
            yield Finding(
                severity="error", message=message, file=cases, line=line, fix="correct the case or the grader"
            )


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


def _case_task(item: dict[str, Any], line: int) -> Task:
    return Task(id=f"case-{line}", skill="", messages=(), reference="", item=item, group="", split="train")
