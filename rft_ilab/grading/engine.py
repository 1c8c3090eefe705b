"""Build the grader of a skill and run it: ``(task, rollout)`` pairs in, grades in the same order out.

Everything about a grader that can be known without a sample is checked when it is built (GraderError).
What happens on one sample stays with that sample: right, wrong or error, and an error is never a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.errors import GraderError
from rft_ilab.grading.multi import ROUNDING, MultiCheck
from rft_ilab.grading.registry import TEXT, arguments, family
from rft_ilab.grading.sample import Check, Mark, Sample, Unanswered, ascii_safe
from rft_ilab.types import Grade, Rollout, Skill, Task

NO_MODEL = "selftest"  # the policy of a grade whose text no model made
# What a check may raise on a sample besides GraderError; anything else is a bug and keeps its traceback.
FAILURES = (GraderError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


class Each:
    """A check of single samples as a check of many; turns what it raises into errors or wrong answers."""

    def __init__(self, check: Any) -> None:
        self._mark_one: Callable[[Sample], Mark] = check.mark_one

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        return [self._one(sample) for sample in samples]

    def _one(self, sample: Sample) -> Mark:
        try:
            return self._mark_one(sample)
        except Unanswered as error:
            return Mark(0.0, None, str(error))
        except GraderError as error:
            return Mark.failed(error.what)
        except FAILURES as error:
            return Mark.failed(f"{type(error).__name__}: {error}")


class SkillGrader:
    """The grader of one skill (implements :class:`rft_ilab.types.Grader`)."""

    def __init__(self, check: Check, threshold: float, digest: str) -> None:
        self._check, self.pass_threshold, self.digest = check, threshold, digest

    def grade(self, pairs: Sequence[tuple[Task, Rollout]]) -> list[Grade]:
        """One grade for each pair, in order. Raises SandboxError if Python graders cannot run at all."""
        for task, rollout in pairs:
            if task.id != rollout.task_id:
                raise ValueError(f"rollout of task {rollout.task_id[:12]} paired with task {task.id[:12]}")
        marks = self._check.mark([Sample(rollout.completion, task.item) for task, rollout in pairs])
        return [
            self._grade(rollout.task_id, rollout.index, rollout.policy_id, mark)
            for (_, rollout), mark in zip(pairs, marks, strict=True)
        ]

    def grade_texts(self, pairs: Sequence[tuple[Task, str]]) -> list[Grade]:
        """As :meth:`grade`, of texts that no model made. A proof tries hundreds of them on every skill."""
        marks = self._check.mark([Sample(text, task.item) for task, text in pairs])
        return [self._grade(task.id, 0, NO_MODEL, mark) for (task, _), mark in zip(pairs, marks, strict=True)]

    def _grade(self, task_id: str, index: int, policy_id: str, mark: Mark) -> Grade:
        error = mark.error
        if error is None and not is_score(mark.score):
            error = f"score {mark.score!r} is not a number from 0 to 1"
        score = None if error is not None else mark.score
        return Grade(
            task_id=task_id,
            index=index,
            policy_id=policy_id,
            score=score,
            passed=None if score is None else score >= self.pass_threshold - ROUNDING,
            answer=None if mark.answer is None else ascii_safe(mark.answer),
            reason=ascii_safe(mark.reason),
            error=None if error is None else ascii_safe(error),
            grader_digest=self.digest,
        )


def is_score(value: object) -> bool:
    """Exactly a float (no subclass), finite, in [0, 1]; nothing is ever clamped."""
    return type(value) is float and math.isfinite(value) and 0.0 <= value <= 1.0


def build_grader(skill: Skill) -> SkillGrader:
    """The grader of a skill. Raises GraderError that names ``grader.json``, what is wrong and the repair."""
    return grader_of(skill.grader, skill.grader_digest, skill.directory / "grader.json")


def grader_of(config: Mapping[str, Any], digest: str, where: Path, *, trusted: bool = True) -> SkillGrader:
    """As :func:`build_grader`, for a grader that belongs to no skill (golden cases, HTTP).

    One that is not ``trusted`` is refused (SandboxError) where its Python could not be caged.
    """
    config = dict(config)
    threshold = config.pop("pass_threshold", 1.0)
    try:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
            raise GraderError(f"pass_threshold {threshold!r}", fix="a number above 0, at most 1")
        return SkillGrader(compile_check(config, trusted=trusted), float(threshold), digest)
    except GraderError as error:
        raise GraderError(error.what, where=where, line=1, fix=error.fix or "see docs/graders.md") from error


def compile_check(config: Any, *, nested: bool = False, trusted: bool = True) -> Check:
    """A grader object (``ref`` resolved) -> a check. Raises GraderError."""
    if not isinstance(config, Mapping):
        raise GraderError("a grader must be a JSON object")
    kind = config.get("type")
    if kind == "multi":
        if nested:
            raise GraderError("a multi grader inside a multi grader", fix="write one formula over all graders")
        return _compile_multi(config, trusted)
    made = family(kind)
    given = arguments(config, made.REQUIRED, made.OPTIONAL)
    if kind == "python":
        given["trusted"] = trusted
    check = made(**given)
    return check if hasattr(check, "mark") else Each(check)


def _compile_multi(config: Mapping[str, Any], trusted: bool) -> Check:
    graders = config.get("graders")
    if isinstance(graders, list):
        names = [g.get("name") if isinstance(g, Mapping) else None for g in graders]
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise GraderError("every grader in the list of a multi grader needs a name of its own")
        graders = dict(zip(names, graders, strict=True))
    if not isinstance(graders, Mapping) or not graders:
        raise GraderError("multi grader has no graders", fix='write "graders": {"a": {...}, "b": {...}}')
    given = arguments({k: v for k, v in config.items() if k != "graders"}, {"calculate_output": TEXT}, {})
    checks = {}
    for name, sub in graders.items():
        if isinstance(sub, Mapping) and "pass_threshold" in sub:
            raise GraderError(f"grader {name!r} inside a multi grader has a pass_threshold", fix="put it outside")
        try:
            checks[name] = compile_check(sub, nested=True, trusted=trusted)
        except GraderError as error:
            raise GraderError(f"grader {name!r}: {error.what}", fix=error.fix) from error
    return MultiCheck(checks, given["calculate_output"])
