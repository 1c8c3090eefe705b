"""What is said of a pull request: one frozen object, filled by :mod:`rft_ilab.pipeline.pull`, rendered elsewhere.

Every name, path and text in it may come from a stranger; the renderers escape. Shares are fractions of 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rft_ilab.report.data import RunReport
from rft_ilab.rl.signal import Signal
from rft_ilab.types import Outcome

Severity = Literal["error", "warning", "notice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something to say of a place in the branch. ``file`` is relative to the repository; ``line`` is 1-based."""

    severity: Severity
    file: str
    message: str
    line: int | None = None
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What was tried on one grader: references accepted, probes withstood, mutants killed; None where none was made."""

    skill: str
    grader: str
    references: int
    refused: int
    probes: int
    fooled: int
    mutants: float | None
    median_ms: float | None
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """What the base model does on training tasks of one skill under one prompt, as training will look at it."""

    prompt: str
    signal: Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What the gate can show of one skill; as in ``ilab rft plan``."""

    skill: str
    tier: str
    tasks: int
    groups: int
    asked: float
    chance: float
    needed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A training task with one answer of the base model. ``passed`` None: the grader failed."""

    skill: str
    prompt: str
    reference: str
    answer: str
    passed: bool | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PullReport:
    """``skills``: name -> new, changed or deleted, and whether it trains. ``ignored``: edits of what judges, which had
    no influence; ``loud``: changed files that tools act on, ``others``: how many more. ``reasons`` explain the outcome.
    """

    outcome: Outcome
    precheck: bool
    headline: str
    reasons: tuple[str, ...]
    base: str
    base_commit: str
    head_commit: str
    skills: Mapping[str, str]
    plain: tuple[str, ...] = ()
    ignored: tuple[Note, ...] = ()
    loud: tuple[Note, ...] = ()
    others: int = 0
    findings: tuple[Note, ...] = ()
    self_tests: tuple[SelfTest, ...] = ()
    signals: tuple[Prompted, ...] = ()
    power: tuple[Power, ...] = ()
    samples: tuple[Sample, ...] = ()
    run: RunReport | None = None
    seconds: Mapping[str, float]
    command: str

    @property
    def notes(self) -> tuple[Note, ...]:
        """All that has a place in the branch, errors first."""
        order = ("error", "warning", "notice")
        return tuple(sorted((*self.findings, *self.loud, *self.ignored), key=lambda note: order.index(note.severity)))


def in_turns(notes: Sequence[Note]) -> list[Note]:
    """The first note of every file, then the second of every file: one bad file hides no other where few are shown.

    >>> [note.message for note in in_turns([Note(severity="error", file=f, message=f + n) for f in "ab" for n in "12"])]
    ['a1', 'b1', 'a2', 'b2']
    """
    seen: defaultdict[str, int] = defaultdict(int)
    ranks = []
    for note in notes:
        ranks.append(seen[note.file])
        seen[note.file] += 1
    return [note for _, note in sorted(zip(ranks, notes, strict=True), key=lambda pair: pair[0])]
