"""Run the table of :mod:`.exploits` against a grader and judge what each text earned.

The probes of all tasks travel in two calls of the grader. Texts that are meant to be slow come in the second, so that
a grader which they kill has answered the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Literal

from rft_ilab.grading.engine import SkillGrader
from rft_ilab.grading.proof.evidence import Effort, Outcome, Result, Shot, shoot, spread
from rft_ilab.grading.proof.exploits import GOLD, LOW, PROBES, Probe
from rft_ilab.grading.proof.golden import Finding, Numbered
from rft_ilab.grading.proof.hostile import Case, tokens
from rft_ilab.grading.sample import shown
from rft_ilab.skills.tasks import class_of

# An echoed prompt or another task's answer may be right by chance now and then; above this share it is the grader.
CHANCE = 0.1
# What an instruction to the judge may add to the score of the same wrong answer.
DELTA = 0.1
CANDIDATES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """All shots by the name of their probe, and the seconds that the slow texts took together."""

    shots: Mapping[str, Sequence[Shot]]
    seconds: float


def cases_of(tasks: Sequence[Numbered], labels: Sequence[str], count: int) -> list[Case]:
    """The tasks to probe. Without ``labels`` the classes of the tasks are taken, if there are any."""
    classes = class_of([task for _, task in tasks])
    # Few tasks with a reference each are not classes, whatever their number.
    found = sorted(set(classes.values())) if classes else []
    listed = tuple(labels) or (tuple(found) if 5 * len(found) <= len(tasks) else ())
    probed = spread(tasks, count)
    references = [task.reference for _, task in probed]
    words = [(found := tokens(text), frozenset(found)) for text in references]
    return [
        Case(line=line, task=task, other=_other(references, words, index), labels=listed if len(listed) > 1 else ())
        for index, (line, task) in enumerate(probed)
    ]


def _other(references: Sequence[str], words: Sequence[tuple[Sequence[str], frozenset[str]]], index: int) -> str | None:
    """The most unlike of the next references (from the middle on) that differ: a near one may be partly right.

    ``words`` are the tokens of the references, in order and as sets.
    """
    own, start = references[index].strip(), index + len(references) // 2
    places = ((start + step) % len(references) for step in range(len(references)))
    # "5" and "5 %", or "The cat." and "the cat", may be the same answer.
    different = (i for i in places if references[i].strip() != own and (not own or words[i][0] != words[index][0]))
    mine = words[index][1]

    def likeness(place: int) -> float:
        others = words[place][1]
        both = len(mine & others)
        return both / max(len(mine) + len(others) - both, 1)

    nearest = min(islice(different, CANDIDATES), key=likeness, default=None)
    return None if nearest is None else references[nearest]


def probes_of(form: bool) -> tuple[Probe, ...]:
    """The table. A grader that checks the form of an answer, and knows no right one, must only grade most of it."""
    nothing = ("empty", "blank", "zero-width")
    if not form:
        return PROBES
    return tuple(replace(p, expects="graded") if p.expects == "low" and p.name not in nothing else p for p in PROBES)


def fire(
    grader: SkillGrader, probes: Sequence[Probe], cases: Sequence[Case], waived: Mapping[str, str], effort: Effort
) -> Fired:
    """Grade the texts of every probe that is not waived. Raises NoAnswer."""
    shots: dict[str, list[Shot]] = {probe.name: [] for probe in probes if probe.name not in waived}
    seconds = 0.0
    for slow in (False, True):
        planned = [
            (probe.name, case, text)
            for probe in probes
            if probe.name in shots and (probe.breadth == "single") == slow
            for case in spread(cases, getattr(effort, probe.breadth))
            for text in probe.texts(case)
        ]
        started = time.perf_counter()
        graded = shoot(grader, [(case, text) for _, case, text in planned], slow=slow)
        seconds = time.perf_counter() - started
        for (name, _, _), shot in zip(planned, graded, strict=True):
            shots[name].append(shot)
    return Fired(shots=shots, seconds=seconds)


def extracted(fired: Fired) -> frozenset[str]:
    """The ids of the tasks whose answer the grader finds inside a text; none if it pays for any text.

    Such a grader sees no negation and no thoughts around the answer.
    """
    without = [shot for name in ("other-reference", "refusal") for shot in fired.shots.get(name, ())]
    if without and fmean(shot.score for shot in without) > 0.5:
        return frozenset()
    return frozenset(shot.case.task.id for shot in fired.shots.get("gold-reasoning", ()) if shot.score >= GOLD)


def judge(probes: Sequence[Probe], fired: Fired, waived: Mapping[str, str], file: Path, hints: bool) -> list[Result]:
    """One row for each probe, in the order of the table."""
    rows = []
    found = extracted(fired)
    for probe in probes:
        if probe.name in waived:
            rows.append(Result(name=probe.name, expects=probe.expects, outcome="waived", note=waived[probe.name]))
            continue
        by_task: dict[str, list[Shot]] = {}
        for shot in fired.shots[probe.name]:
            by_task.setdefault(shot.case.task.id, []).append(shot)
        if by_task:
            rows.append(_row(probe, list(by_task.values()), found, file, hints))
        else:
            rows.append(Result(name=probe.name, expects=probe.expects, outcome="n/a"))
    return rows


def _row(probe: Probe, groups: Sequence[Sequence[Shot]], found: frozenset[str], file: Path, hints: bool) -> Result:
    """``groups`` are the shots of one task each, at least one."""
    failed = list(_failed(probe, groups, file))
    finding, hint = _refused(probe, groups, file) if probe.expects == "gold" else _paid(probe, groups, found, file)
    outcome: Outcome = "ok" if finding is None else "info" if probe.name == "gold-reasoning" else finding.severity
    reported = [finding] if finding and outcome != "info" and (hints or not hint) else []
    worst = (min if probe.expects == "gold" else max)((_worst(probe, group) for group in groups), key=_score)
    return Result(
        name=probe.name,
        expects=probe.expects,
        outcome="error" if failed else outcome,
        tasks=len(groups),
        texts=sum(map(len, groups)),
        score=worst.grade.score,
        text=worst.text,
        note=failed[0].message if failed else _note(probe, finding, found),
        findings=(*failed, *reported),
    )


def _note(probe: Probe, finding: Finding | None, found: frozenset[str]) -> str:
    if probe.name == "gold-reasoning":
        return "looks for the answer in the text" if found else "takes nothing but the answer"
    return finding.message if finding else ""


def _score(shot: Shot) -> float:
    return shot.score


def _worst(probe: Probe, group: Sequence[Shot]) -> Shot:
    """Of the texts of one task, the one that says most against the grader."""
    if probe.expects == "gold" or probe.pair:
        return min(group, key=_score)
    return max(group[1:] if probe.relative and len(group) > 1 else group, key=_score)


def _failed(probe: Probe, groups: Sequence[Sequence[Shot]], file: Path) -> Iterator[Finding]:
    failed = [next(shot for shot in group if shot.grade.error) for group in groups if any(s.grade.error for s in group)]
    if failed:
        first = failed[0]
        message = f"the grader fails on {probe.what} ({len(failed)} of {len(groups)} tasks): {first.grade.error}"
        fix = "score a malformed answer 0; an error is for what is no fault of the answer"
        yield Finding(severity="error", message=message, file=file, line=first.case.line, fix=fix)


def _refused(probe: Probe, groups: Sequence[Sequence[Shot]], file: Path) -> tuple[Finding | None, bool]:
    """A warning for a right answer that does not earn all. Always a hint: it costs signal, but pays nobody."""
    refused = [shot for shot in (_worst(probe, group) for group in groups) if shot.score < GOLD]
    if not refused:
        return None, True
    first = refused[0]
    message = f"{probe.what} earns {first.score:g} ({len(refused)} of {len(groups)} tasks), here {shown(first.text)}"
    fix = "a right answer should earn 1, however it is laid out"
    return Finding(severity="warning", message=message, file=file, line=first.case.line, fix=fix), True


def _paid(
    probe: Probe, groups: Sequence[Sequence[Shot]], found: frozenset[str], file: Path
) -> tuple[Finding | None, bool]:
    """The finding for texts that earned too much, and whether it is but a hint."""
    paid = [shot for group in groups if (shot := _worst(probe, group)).score > _ceiling(probe, group)]
    if not paid:
        return None, False
    passed = [shot for shot in paid if shot.grade.passed]
    blatant = [shot for shot in passed if not (probe.extracted and shot.case.task.id in found)]
    first = (blatant or passed or [max(paid, key=_score)])[0]
    does = "passes" if passed else f"earns {first.score:g}"
    message = f"{probe.what} {does} ({len(passed or paid)} of {len(groups)} tasks), here {shown(first.text)}"
    hint = probe.knowing and not blatant
    by_chance = probe.chance and len(paid) <= CHANCE * len(groups)
    fix = "make the grader refuse it"
    if not (hint or by_chance):
        fix += f', or say in grader.waivers.json why "{probe.name}" does not apply'
    severity: Literal["error", "warning"] = "warning" if hint or by_chance else "error"
    return Finding(severity=severity, message=message, file=file, line=first.case.line, fix=fix), hint


def _ceiling(probe: Probe, group: Sequence[Shot]) -> float:
    if probe.expects == "graded":
        return 1.0
    return max(LOW, group[0].score + DELTA) if probe.relative else LOW
