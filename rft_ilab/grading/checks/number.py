"""``number``: the LAST number of the answer, within ``tolerance`` + ``relative_tolerance`` x |reference|.

Read: ``1,234.50``, ``-$4``, ``5E-02``, ``1/20``, ``5%`` (= 0.05), a trailing period. The point is the
decimal sign. Arithmetic is exact (fractions), so a tolerance of 0.01 holds for 10.00 and 10.01.
NaN, infinities, ``1e999`` and a division by zero are wrong answers. Only the last 4096 characters
are read: what stands before them is not an answer, and the pattern stays cheap on any input.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from rft_ilab.errors import GraderError
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template

TAIL = 4096
MAX_DIGITS = 400
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
NUMBER = re.compile(
    rf"(?P<sign>(?<![0-9A-Za-z_.)])[-+\u2212])?(?:[$€£¥]\s?)?"
    rf"(?P<digits>{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)(?P<exponent>[eE][-+]?[0-9]+)?"
    r"(?:\s?/\s?(?P<over>[0-9]+)(?![0-9.,]*[0-9]))?(?P<percent>\s?%)?"
)


def last_number(text: str) -> tuple[str, Fraction | None] | None:
    """The last number as (its text, its value); the value is None if it is not finite; None if there is no number.

    >>> last_number("from 3 to 1/20.")
    ('1/20', Fraction(1, 20))
    """
    tail = text[-TAIL:]
    if len(text) > TAIL:
        tail = tail.lstrip("0123456789.,eE+-\u2212/%")  # a number cut in two is not read as a shorter one
    matches = list(NUMBER.finditer(tail))
    return (matches[-1][0].strip(), _value(matches[-1])) if matches else None


def _value(match: re.Match[str]) -> Fraction | None:
    digits = match["digits"].replace(",", "")
    exponent = int(match["exponent"][1:]) if match["exponent"] and len(match["exponent"]) < 8 else 0
    too_long = len(digits) > MAX_DIGITS or len(match["over"] or "") > MAX_DIGITS
    if too_long or abs(exponent) > MAX_DIGITS or len(match["exponent"] or "") >= 8:
        return None
    value = Fraction(digits) * Fraction(10) ** exponent
    if match["over"]:
        if int(match["over"]) == 0:
            return None
        value /= int(match["over"])
    if match["percent"]:
        value /= 100
    if abs(value) > Fraction(1.7976931348623157e308):
        return None
    return -value if match["sign"] in ("-", "\u2212") else value


class NumberCheck:
    def __init__(self, input: str, reference: str, tolerance: float = 0.0, relative_tolerance: float = 0.0) -> None:
        for name, value in (("tolerance", tolerance), ("relative_tolerance", relative_tolerance)):
            if not math.isfinite(value) or value < 0:
                raise GraderError(f"{name} must be a number that is not negative")
        self._input, self._reference = Template(input), Template(reference)
        # str() first: the author wrote 0.01, not the binary fraction nearest to it.
        self._absolute, self._relative = Fraction(str(tolerance)), Fraction(str(relative_tolerance))

    def mark_one(self, sample: Sample) -> Mark:
        reference = self._reference.render(sample)
        wanted = last_number(reference)
        if wanted is None or wanted[1] is None:
            return Mark.failed(f"the reference {shown(reference)} has no number")
        answer = self._input.render(sample)
        found = last_number(answer)
        if found is None:
            return Mark(0.0, None, f"no number in {shown(answer)}; expected {wanted[0]}")
        text, value = found
        if value is None:
            return Mark(0.0, text[:40], f"{text[:40]} is out of range; expected {wanted[0]}")
        right = abs(value - wanted[1]) <= self._absolute + self._relative * abs(wanted[1])
        return Mark(float(right), text[:40], "right" if right else f"{text[:40]}, expected {wanted[0]}")
