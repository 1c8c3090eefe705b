"""A run against its control arms, on the validation tasks that all of them were selected by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rft_ilab.errors import RunError
from rft_ilab.regress.statistics import Difference, paired_difference
from rft_ilab.rl.validation import Answer, load_answers
from rft_ilab.store import Run, read_json

Finding = Literal["beats", "not shown", "worse"]


@dataclass(frozen=True, slots=True)
class Arm:
    """A finished training and its greedy answers by task id. ``control`` is empty for the real run."""

    directory: Path
    control: str
    chosen: str
    base: Mapping[str, Answer]
    start: Mapping[str, Answer]
    tuned: Mapping[str, Answer]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One target: gains over the base and after the warm start; ``against`` has real minus control by arm.

    ``gains`` starts with the real run.
    """

    skill: str
    tasks: int
    gains: Sequence[tuple[Arm, Difference, Difference]]
    against: Sequence[tuple[Arm, Difference, Finding]]


def compare_controls(run: Path, controls: Sequence[Path], alpha: float) -> list[Comparison]:
    """Paired differences with intervals at level 1 - ``alpha``, clustered by task group; one entry a target.

    Raises RunError if ``run`` is a control, another is none, one is not trained, or one differs in more than reward.
    """
    real = _arm(run)
    if real.control:
        raise RunError(f"this is a control run ({real.control})", where=run, fix="name the real run first")
    arms = [_arm(directory) for directory in controls]
    for arm in arms:
        if not arm.control:
            raise RunError("this is no control run", where=arm.directory, fix="train one with --control")
        _refuse_other_settings(run, arm.directory)
    skills = sorted({answer.skill for answer in real.tuned.values()})
    return [_compare(skill, real, arms, alpha) for skill in skills]


def _compare(skill: str, real: Arm, arms: Sequence[Arm], alpha: float) -> Comparison:
    ids = sorted(i for i, answer in real.tuned.items() if answer.skill == skill)
    gains = [
        (arm, _difference(ids, arm.base, arm.tuned, arm, alpha), _difference(ids, arm.start, arm.tuned, arm, alpha))
        for arm in (real, *arms)
    ]
    against = []
    for arm in arms:
        found = _difference(ids, arm.tuned, real.tuned, arm, alpha)
        finding: Finding = "beats" if found.low > 0 else "worse" if found.high < 0 else "not shown"
        against.append((arm, found, finding))
    return Comparison(skill, len(ids), gains, against)


def _difference(
    ids: Sequence[str], before: Mapping[str, Answer], after: Mapping[str, Answer], arm: Arm, alpha: float
) -> Difference:
    """after - before over the tasks that both sides have a grade for."""
    if missing := [i for i in ids if i not in before or i not in after]:
        raise RunError(
            f"{len(missing)} of {len(ids)} validation tasks were not answered in this run",
            where=arm.directory,
            fix="train it again on the same tasks",
        )
    pairs = [(before[i].passed, after[i].passed) for i in ids]
    graded = [a is not None and b is not None for a, b in pairs]
    if not any(graded):
        raise RunError("no validation task is graded on both sides", where=arm.directory, fix="repair the grader")
    groups = [after[i].group for i in ids]
    return paired_difference(
        [float(a or 0) for a, _ in pairs], [float(b or 0) for _, b in pairs], groups, alpha, graded
    )


def _arm(directory: Path) -> Arm:
    run = Run.open(directory)
    log = run.path("rl")
    if not (log / "selection.json").exists():
        raise RunError("this run is not trained yet", where=directory, fix="finish it with: ilab model rft --run ...")
    selection = read_json(log / "selection.json")
    chosen = f"{selection['chosen']}@{selection.get('scale', 1.0):g}"
    found = [load_answers(log, label) for label in ("base@0", "sft@1", chosen)]
    if not all(found):
        raise RunError(
            "this run kept no validation answers", where=directory, fix="train it again with this version of rft-ilab"
        )
    return Arm(directory, run.manifest.get("control", ""), chosen, *found)


def _refuse_other_settings(run: Path, control: Path) -> None:
    """Raises RunError unless the two runs are the same but for the reward."""
    real, other = (_identity(directory) for directory in (run, control))
    if different := sorted(k for k in {*real, *other} if real.get(k) != other.get(k)):
        raise RunError(
            f"this control differs from {run.name} in more than its reward ({', '.join(different)})",
            where=control,
            fix="train it with the same model, skills, settings and seed",
        )


def _identity(directory: Path) -> dict[str, Any]:
    return {k: v for k, v in Run.open(directory).manifest.get("identity", {}).items() if k != "control"}
