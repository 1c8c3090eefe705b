"""``multi`` of OpenAI: a formula over the scores of several graders. An error of one is an error of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rft_ilab.errors import GraderError
from rft_ilab.grading.formula import MANY, ONE, Formula
from rft_ilab.grading.sample import Check, Mark, Sample

# Weights such as 0.7, 0.2 and 0.1 add up to 0.9999999999999999 in floats; that is a 1 to their author.
ROUNDING = 1e-12


class MultiCheck:
    """``checks`` by their names in the formula. Raises GraderError for a name that the formula cannot use."""

    def __init__(self, checks: Mapping[str, Check], calculate_output: str) -> None:
        for name in checks:
            if not name.isidentifier() or not name.isascii() or name in ONE or name in MANY:
                raise GraderError(f"grader name {name!r} cannot stand in a formula", fix="use letters, digits and _")
        self._checks, self._formula = checks, Formula(calculate_output)
        if unknown := self._formula.names - set(checks):
            known = ", ".join(checks)
            raise GraderError(f"unknown name {min(unknown)!r} in formula {calculate_output!r}", fix=f"known: {known}")

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        columns = [check.mark(samples) for check in self._checks.values()]
        return [self._combine(dict(zip(self._checks, row, strict=True))) for row in zip(*columns, strict=True)]

    def _combine(self, marks: Mapping[str, Mark]) -> Mark:
        scores: dict[str, float] = {}
        for name, mark in marks.items():
            if mark.error is not None or mark.score is None:
                return Mark.failed(f"{name}: {mark.error}")
            scores[name] = mark.score
        try:
            score = self._formula(scores)
        except (ArithmeticError, ValueError) as error:
            return Mark.failed(f"formula {self._formula.text!r}: {error}")
        nearest = float(score >= 0.5)
        score = nearest if abs(score - nearest) <= ROUNDING else score
        if not 0.0 <= score <= 1.0:
            return Mark.failed(f"formula {self._formula.text!r} gives {score:g}, outside 0 to 1")
        reason = "; ".join(f"{name} {scores[name]:g}" + _why(mark) for name, mark in marks.items())
        answer = next((mark.answer for mark in marks.values() if mark.answer is not None), None)
        return Mark(score, answer, reason)


def _why(mark: Mark) -> str:
    return "" if mark.score == 1.0 or mark.reason.startswith("scored ") else f" ({mark.reason})"
