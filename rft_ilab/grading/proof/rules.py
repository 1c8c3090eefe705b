"""Rules that no table of texts can express: in time, separated, the same score every time, no score without a task.

And how long a grade takes: :func:`latency`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rft_ilab.grading.engine import SkillGrader
from rft_ilab.grading.proof.battery import Fired
from rft_ilab.grading.proof.evidence import Effort, Result, Shot, shoot, spread
from rft_ilab.grading.proof.exploits import Probe
from rft_ilab.grading.proof.golden import Finding
from rft_ilab.grading.proof.hostile import Case
from rft_ilab.grading.sample import shown

SECONDS = 10.0  # the sandbox waits 5 s, for a Python grader or for a program that is the answer
SEPARATION = 0.5
TIMING_BUDGET = 5.0
# An answer that passes this share of the tasks whose reference is another one is a door, not a coincidence.
CONSTANT_SHARE, CONSTANTS = 0.5, 16

#: name -> what it expects, for the table
RULES: Mapping[str, str] = {
    "in-time": f"{SECONDS:g} s",
    "separation": f">= {SEPARATION:g}",
    "constant": f"<= {CONSTANT_SHARE:g}",
    "repeat": "same",
    "missing-field": "error",
}


def run_rules(
    grader: SkillGrader,
    probes: Sequence[Probe],
    cases: Sequence[Case],
    fired: Fired,
    waived: Mapping[str, str],
    file: Path,
    effort: Effort,
    form: bool = False,
) -> list[Result]:
    """One row for each rule. ``form``: the grader checks a form and knows no right answer, so one text may do."""
    narrow = spread(cases, effort.narrow)
    rules: dict[str, Callable[[], Result]] = {
        "in-time": lambda: _in_time(grader, probes, fired, file),
        "separation": lambda: _separation(probes, fired, file),
        "constant": lambda: _constant(grader, () if form else cases, file, max(4, effort.narrow)),
        "repeat": lambda: _repeat(grader, narrow, file, effort.rounds),
        "missing-field": lambda: _missing_field(grader, narrow, file),
    }
    return [
        Result(name=name, expects=RULES[name], outcome="waived", note=waived[name]) if name in waived else rule()
        for name, rule in rules.items()
    ]


def _row(name: str, finding: Finding | None = None, note: str = "", **fields: Any) -> Result:
    if finding is None:
        return Result(name=name, expects=RULES[name], note=note, **fields)
    outcome = finding.severity
    return Result(name=name, expects=RULES[name], outcome=outcome, note=finding.message, findings=(finding,), **fields)


def _error(message: str, file: Path, line: int, fix: str) -> Finding:
    return Finding(severity="error", message=message, file=file, line=line, fix=fix)


def _in_time(grader: SkillGrader, probes: Sequence[Probe], fired: Fired, file: Path) -> Result:
    """A Python grader that is too slow is stopped by the sandbox and fails on the text; this is for the others."""
    slow = [shot for probe in probes if probe.breadth == "single" for shot in fired.shots.get(probe.name, ())]
    note = f"{len(slow)} texts in {fired.seconds:.1f} s"
    if fired.seconds > SECONDS and not any(shot.grade.error for shot in slow):
        for shot in slow:
            started = time.perf_counter()
            shoot(grader, [(shot.case, shot.text)])
            if (took := time.perf_counter() - started) > SECONDS:
                message = f"the grader takes {took:.0f} s for {len(shot.text):,} characters, here {shown(shot.text)}"
                found = _error(message, file, shot.case.line, "bound what the grader reads, and its patterns")
                return _row("in-time", found, text=shot.text)
    return _row("in-time", note=note, texts=len(slow))


def _separation(probes: Sequence[Probe], fired: Fired, file: Path) -> Result:
    """How far right answers lie above those that know nothing; both ends of the signal that training gets."""
    blind = [probe.name for probe in probes if probe.expects == "low" and not probe.knowing]
    low = [shot for name in blind for shot in fired.shots.get(name, ()) if shot.grade.error is None]
    gold = list(fired.shots.get("gold", ()))
    if not low or not gold:
        return _row("separation", outcome="n/a")
    gap = fmean(shot.score for shot in gold) - fmean(shot.score for shot in low)
    if gap >= SEPARATION:
        return _row("separation", texts=len(gold) + len(low), score=gap)
    message = f"references earn only {gap:.2f} more than {len(low)} answers that know nothing"
    found = _error(message, file, gold[0].case.line, "let the score depend on what is right")
    return _row("separation", found, texts=len(gold) + len(low), score=gap)


def _constant(grader: SkillGrader, cases: Sequence[Case], file: Path, breadth: int) -> Result:
    """One answer for everything: each label, and references of a few tasks, on tasks that ask for something else."""
    answers = list(dict.fromkeys([*(label for case in cases[:1] for label in case.labels), *(c.gold for c in cases)]))
    others = {text: [case for case in cases if case.gold.strip() != text.strip()] for text in answers[:CONSTANTS]}
    pairs = [(case, text) for text, rest in others.items() if len(rest) > 3 for case in spread(rest, breadth)]
    passed: dict[str, list[Shot]] = {}
    for shot in shoot(grader, pairs):
        passed.setdefault(shot.text, []).append(shot)
    for text, shots in passed.items():
        right = [shot for shot in shots if shot.grade.passed]
        if len(right) > CONSTANT_SHARE * len(shots):
            message = f"{shown(text)} passes {len(right)} of {len(shots)} tasks that have another reference"
            found = _error(message, file, right[0].case.line, "no answer may be right for every task")
            return _row("constant", found, tasks=len(cases), text=text)
    return _row("constant", tasks=len(cases), texts=len(pairs), outcome="ok" if pairs else "n/a")


def _repeat(grader: SkillGrader, cases: Sequence[Case], file: Path, rounds: int) -> Result:
    """The same pairs in another process, there more than once and in reversed order.

    A grader that draws lots, depends on the order of a set or remembers earlier answers gives itself away.
    """
    pairs = [(case, text) for case in cases for text in (case.gold, case.other or "", f"{case.gold}?")]
    first = shoot(grader, pairs)
    orders = [list(range(len(pairs)))] * rounds + [list(range(len(pairs)))[::-1]]
    places = [index for order in orders for index in order]
    for index, again in zip(places, shoot(grader, [pairs[index] for index in places]), strict=True):
        before = first[index]
        if _said(before) != _said(again):
            message = f"{shown(before.text)} earns {_said(before)}, and {_said(again)} when it is graded again"
            fix = "no chance and no memory: let the score depend on the answer and the task alone"
            return _row("repeat", _error(message, file, before.case.line, fix), texts=len(pairs), text=before.text)
    return _row("repeat", texts=len(pairs), note=f"graded {rounds + 2} times, once in reversed order")


def _said(shot: Shot) -> str:
    return "an error" if shot.grade.score is None else repr(shot.grade.score)


def _missing_field(grader: SkillGrader, cases: Sequence[Case], file: Path) -> Result:
    """The reference of a task that has lost its fields: an error, or still right if the grader reads none. Never 0."""
    bare = [dataclasses.replace(case, task=dataclasses.replace(case.task, item={})) for case in cases]
    scored = [shot for shot in shoot(grader, [(case, case.gold) for case in bare]) if shot.grade.score is not None]
    if wrong := [shot for shot in scored if not shot.grade.passed]:
        message = f"a task without its fields is scored {wrong[0].score:g}, so a broken task reads as a wrong answer"
        fix = "raise an error where a field of the item is missing"
        return _row("missing-field", _error(message, file, wrong[0].case.line, fix), tasks=len(bare))
    return _row("missing-field", note="the grader reads no field" if scored else "", tasks=len(bare))


def latency(grader: SkillGrader, cases: Sequence[Case], count: int) -> dict[str, float] | None:
    """Milliseconds of single grades of right answers: median, p99 and how many. Includes the start of a process."""
    taken: list[float] = []
    begun = time.perf_counter()
    for index in range(count if cases else 0):
        started = time.perf_counter()
        shoot(grader, [(case := cases[index % len(cases)], case.gold)])
        taken.append(1000 * (time.perf_counter() - started))
        if time.perf_counter() - begun > TIMING_BUDGET:
            break
    if not taken:
        return None
    ranked = sorted(taken)
    return {"median": median(ranked), "p99": ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))], "n": len(ranked)}
