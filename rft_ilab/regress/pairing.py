"""Two models' results side by side: the same tasks in the same order, and which of them count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rft_ilab.errors import RunError
from rft_ilab.regress import anytime
from rft_ilab.regress.anytime import Stage
from rft_ilab.regress.classes import class_means
from rft_ilab.regress.groups import worst_group
from rft_ilab.regress.statistics import Difference, clusters_needed
from rft_ilab.regress.verdict import ClassRow, Metric, SampledMetric, TaskResult, WorstGroup
from rft_ilab.types import Outcome

MAX_UNGRADED = 0.05  # share of a suite's tasks; beyond it the suite decides nothing
MANY_TASKS = 100_000  # advice to collect more than this is no advice

Side = Sequence[TaskResult]
Score = Callable[[TaskResult], float]


def greedy_score(result: TaskResult) -> float:
    """The greedy score; NaN where the grader failed."""
    return _number(result.greedy.score)


def sampled_score(result: TaskResult) -> float:
    """Mean over the random draws; NaN without any, or if the grader failed on one of them.

    A mean over the draws that happened to be graded would reward a model whose bad answers crash the grader.
    """
    scores = [_number(score) for score in result.sampled]
    return sum(scores) / len(scores) if scores else math.nan


def aligned(skill: str, before: Side, after: Side) -> list[TaskResult]:
    """``before`` in the order of ``after``. Raises RunError unless both hold each task once, in the same group."""
    by_id = {result.task_id: result for result in before}
    wanted = [result.task_id for result in after]
    if len(by_id) != len(before) or len(set(wanted)) != len(wanted):
        raise RunError(f"{skill}: a task occurs twice in the results", fix="run the gate again")
    if set(by_id) != set(wanted):
        odd = min(set(by_id) ^ set(wanted))
        raise RunError(f"{skill}: only one of the two models answered task {odd[:12]}", fix="run the gate again")
    ordered = [by_id[task_id] for task_id in wanted]
    for left, right in zip(ordered, after, strict=True):
        if (left.group, left.cls) != (right.group, right.cls):
            raise RunError(
                f"{skill}: task {left.task_id[:12]} changed its group or class between the two models",
                fix="run the gate again on one version of the tasks",
            )
    return ordered


def graded_everywhere(sides: Sequence[Side], score: Score) -> list[bool]:
    """Per task: has it a number on every side?"""
    return [all(math.isfinite(score(result)) for result in results) for results in zip(*sides, strict=True)]


def compare(
    before: Side, after: Side, score: Score, graded: Sequence[bool], alpha: float, look: Stage | None = None
) -> Difference | None:
    """The paired difference over the tasks that are graded; None if none is. At a ``look`` it allows for all looks."""
    if not any(graded):
        return None
    before_N, after_N = [score(result) for result in before], [score(result) for result in after]
    return anytime.difference(before_N, after_N, [result.group for result in after], alpha, graded, look)


def undecidable(graded: Sequence[bool], what: str, note: str = "") -> str | None:
    """Why a suite cannot decide anything for lack of grades (``note``: what is known of the cause); None if it can."""
    total, missing = len(graded), len(graded) - sum(graded)
    if total == 0:
        return "it has no test tasks"
    if missing > MAX_UNGRADED * total:
        lack = f"{missing} of {total} tasks have no grade for the {what} answers (at most {MAX_UNGRADED:.0%} may)"
        return f"{lack}: {note}" if note else lack
    return None


def too_few_groups(difference: Difference, alpha: float) -> str | None:
    """Why the tasks are too dependent to decide anything; None if they are not."""
    needed = clusters_needed(alpha)
    if difference.clusters >= needed:
        return None
    return f"only {difference.clusters} independent groups of tasks; nothing can be shown with fewer than {needed}"


def metric(difference: Difference | None) -> Metric:
    """JSON fields of a comparison; without one, no numbers and an interval that excludes nothing."""
    if difference is None:
        return {"before": None, "after": None, "delta": None, "ci": [-1.0, 1.0]}
    d = difference
    return {"before": d.before, "after": d.after, "delta": d.delta, "ci": [d.low, d.high]}


def sampled_metric(difference: Difference | None, after: Side) -> SampledMetric:
    return {**metric(difference), "samples": max((len(result.sampled) for result in after), default=0)}


def classes_of(results: Side) -> list[str]:
    """The class of each task; empty if some have none, because half a classification is none."""
    classes = [result.cls for result in results if result.cls is not None]
    return classes if len(classes) == len(results) else []


def class_rows(before: Side, after: Side, classes: Sequence[str]) -> list[ClassRow]:
    """Accuracy per class on both sides; ``classes`` has one class a task, or is empty."""
    if not classes:
        return []
    then = class_means([greedy_score(result) for result in before], classes)
    now = class_means([greedy_score(result) for result in after], classes)
    return [{"class": name, "n": n, "before": then[name][1], "after": mean} for name, (n, mean) in now.items()]


def worst_group_of(before: Side, after: Side, graded: Sequence[bool]) -> WorstGroup | None:
    """The group of tasks whose greedy answers lost most; None if none did."""
    before_N, after_N = [greedy_score(result) for result in before], [greedy_score(result) for result in after]
    return worst_group(before_N, after_N, [result.group for result in after], graded)


def drawn(outcome: Outcome, count: int, look: Stage) -> str:
    """How much of a suite was drawn, as the end of its reason.

    >>> from rft_ilab.regress.sequential import Look
    >>> drawn("PASS", 96, Look(shares_K=(0.32, 1.0), index=0, available=300))
    'decided after 96 of 300 tasks'
    """
    if outcome != "INCONCLUSIVE":
        return f"decided after {count} of {look.available} tasks"
    return f"undecided after all {count} tasks" if look.last else f"undecided after {count} of {look.available} tasks"


def points(difference: Difference) -> str:
    """``+4.0 points, interval [-1.0, +9.2]``"""
    d = difference
    return f"{100 * d.delta:+.1f} points, interval [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"


def advice(tasks: int | None) -> str:
    """How many tasks would decide, to two digits: more would pretend a precision that is not there."""
    if tasks is None or tasks > MANY_TASKS:
        return "no reasonable number of such tasks would decide"
    digits = 10 ** max(len(str(tasks)) - 2, 0)
    return f"about {math.ceil(tasks / digits) * digits} such tasks would decide"


def _number(score: float | None) -> float:
    return score if score is not None and math.isfinite(score) else math.nan
