r"""``math``: the answer is mathematically equal to the reference.

``rule`` is ``verify`` (default): math-verify (https://github.com/huggingface/Math-Verify) reads LaTeX and plain
expressions and compares them with sympy: ``\boxed{\frac{1}{2}}`` is ``0.5``. A bare expression is read as a whole, of
prose with marks (``$...$``, ``\boxed``) what is marked, of other prose the last number. Two answers are a set, so ``3
or 4`` is not ``4``. Or ``rule`` is ``hendrycks``: the string rule of the MATH data set (:mod:`.latex`) on the last
``\boxed{...}``, or the whole answer.

Only the last 2048 characters of an answer are read. sympy runs in a process of its own (:mod:`.bounded`) for at most
0.8 s of processor time: an answer such as ``9^{9^9}`` is wrong, a reference that cannot be read is an error.

Not covered: proofs, units, words for numbers, an interval told from a point (both are written ``(1, 2)``). What
math-verify accepts is accepted: ``x = 4`` for ``4``, ``12`` for ``12\%``, 0.333333 for 1/3 (six digits).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.bounded import bounded
from rft_ilab.grading.checks.latex import last_boxed, normalise
from rft_ilab.grading.registry import TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template

TAIL = 2048
RULES = ("verify", "hendrycks")


class MathCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT}
    OPTIONAL: ClassVar[Keys] = {"rule": TEXT}

    def __init__(self, input: str, reference: str, rule: str = "verify") -> None:
        if rule not in RULES:
            raise GraderError(f"unknown rule {rule!r}", fix=f"one of {', '.join(RULES)}")
        if rule == "verify" and find_spec("math_verify") is None:
            raise GraderError("a math grader needs the package 'math-verify'", fix="pip install math-verify")
        self._input, self._reference, self._rule = Template(input), Template(reference), rule

    def mark_one(self, sample: Sample) -> Mark:
        reference = self._reference.render(sample)
        if not reference.strip():
            return Mark.failed("the reference is empty")
        if len(reference) > TAIL:
            return Mark.failed(f"the reference is longer than {TAIL} characters")
        answer = self._input.render(sample)[-TAIL:]
        if self._rule == "verify":
            return bounded("math_child.py").ask(reference=reference, answer=answer, control="0")
        boxed = last_boxed(answer)
        found, wanted = normalise(answer if boxed is None else boxed), normalise(last_boxed(reference) or reference)
        if not wanted:
            return Mark.failed(f"nothing is left of the reference {shown(reference)}")
        right = found == wanted
        return Mark(float(right), found, "right" if right else f"{shown(found)}, expected {shown(wanted)}")
