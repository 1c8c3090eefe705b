"""What a proof of a grader is made of: texts that were graded (:class:`Shot`), rows of a table (:class:`Result`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from rft_ilab.grading.engine import SkillGrader
from rft_ilab.grading.proof.golden import Finding, patiently
from rft_ilab.grading.proof.hostile import Case
from rft_ilab.types import Grade

Outcome = Literal["ok", "info", "warning", "error", "waived", "n/a"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """On how many tasks a probe is tried, by its breadth; how many references are changed, how often the same pairs
    are graded again, and how many grades are timed. ``hints`` adds warnings about what is no hole but worth knowing."""

    wide: int = 64
    narrow: int = 4
    single: int = 1
    mutated: int = 32
    rounds: int = 1
    timed: int = 0
    hints: bool = False


class Shot(NamedTuple):
    """One text, as graded on one task. A named tuple, as :class:`~rft_ilab.grading.sample.Mark` is: there are many."""

    case: Case
    text: str
    grade: Grade

    @property
    def score(self) -> float:
        """What it earned; an error earns nothing (and is a finding of its own)."""
        return self.grade.score or 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row. ``score`` is the worst that was seen and ``text`` what earned it; ``note`` is for people."""

    name: str
    expects: str
    outcome: Outcome = "ok"
    tasks: int = 0
    texts: int = 0
    score: float | None = None
    text: str = ""
    note: str = ""
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "findings"}


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, evenly spread.

    >>> spread("abcdefgh", 4)
    ['a', 'c', 'e', 'g']
    """
    count = min(len(items), count)
    return [items[i * len(items) // count] for i in range(count)]


def shoot(grader: SkillGrader, pairs: Sequence[tuple[Case, str]], *, slow: bool = False) -> list[Shot]:
    """As many texts as possible in one call of the grader: a Python grader starts a process for every 64 of them.

    Raises NoAnswer where it gives no score any more, unless the texts are meant to be ``slow``.
    """
    texts = [(case.task, text) for case, text in pairs]
    grades = grader.grade_texts(texts) if slow else patiently(grader, texts)
    return [Shot(case, text, grade) for (case, text), grade in zip(pairs, grades, strict=True)]
