"""``string_check`` of OpenAI: ``eq``, ``ne`` (or ``neq``), ``like``, ``ilike``.

``like`` means that the input contains the reference; ``ilike`` the same in any case.
Texts are compared as they are, white space included, as OpenAI does.
"""

from __future__ import annotations

from typing import ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template

OPERATIONS = ("eq", "ne", "neq", "like", "ilike")


class StringCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT, "operation": TEXT}
    OPTIONAL: ClassVar[Keys] = {}

    def __init__(self, input: str, reference: str, operation: str) -> None:
        if operation not in OPERATIONS:
            raise GraderError(f"unknown operation {operation!r}", fix=f"one of {', '.join(OPERATIONS)}")
        self._input, self._reference, self._operation = Template(input), Template(reference), operation

    def mark_one(self, sample: Sample) -> Mark:
        reference = self._reference.render(sample)
        answer = self._input.render(sample)
        if self._operation in ("like", "ilike") and not reference:
            return Mark.failed("the reference is empty, and every text contains the empty one")
        match self._operation:
            case "eq":
                right, wanted = answer == reference, "the text"
            case "like":
                right, wanted = reference in answer, "a text with"
            case "ilike":
                right, wanted = reference.casefold() in answer.casefold(), "a text with"
            case _:
                right, wanted = answer != reference, "anything but"
        return Mark(float(right), answer, "right" if right else f"{shown(answer)} is not {wanted} {shown(reference)}")
