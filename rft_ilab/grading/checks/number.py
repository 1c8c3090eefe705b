"""``number``: the LAST number of the answer, within ``tolerance`` + ``relative_tolerance`` x |reference|.

Read: ``1,234.50``, ``-$4``, ``4 EUR``, ``5E-02``, ``1/20``, ``5%`` (= 0.05), a trailing period. The point is the
decimal sign. Arithmetic is exact (fractions), so a tolerance of 0.01 holds for 10.00 and 10.01.
NaN, infinities, ``1e999`` and a division by zero are wrong answers. Only the last 4096 characters
are read: what stands before them is not an answer, and the pattern stays cheap on any input.

``which`` is ``last`` (default), ``first`` (of the first 4096 characters) or ``only``: then an answer with a second
number, or of more than 4096 characters, is wrong. ``percent`` is ``fraction`` (default: ``5%`` is 0.05) or ``ignore``
(``5%`` is 5), for answer and reference alike.

Not covered: a currency or unit is not compared; a decimal comma (``1,5`` is read as two numbers), numbers in words,
mixed numbers (``1 1/2``), digits other than 0-9, a sign that touches a letter before it (``USD-4`` is read as 4).
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import NUMBER, TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template

TAIL = 4096
MAX_DIGITS = 400
PIECES = "0123456789.,eE+-\u2212/%"
LARGEST = Fraction(1.7976931348623157e308)
PERCENTS = ("fraction", "ignore")
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
PATTERN = re.compile(
    rf"(?P<sign>(?<![0-9A-Za-z_.)])[-+\u2212])?(?:[$€£¥]\s?)?"
    rf"(?P<digits>{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)(?P<exponent>[eE][-+]?[0-9]+)?"
    r"(?:\s?/\s?(?P<over>[0-9]+)(?![0-9.,]*[0-9]))?(?P<percent>\s?%)?"
)

Number = tuple[str, Fraction | None]


def last_number(text: str, percent: str = "fraction") -> Number | None:
    """The last number as (its text, its value); the value is None if it is not finite; None if there is no number.

    >>> last_number("from 3 to 1/20.")
    ('1/20', Fraction(1, 20))
    """
    tail = text[-TAIL:]
    if len(text) > TAIL:
        tail = tail.lstrip(PIECES)  # a number cut in two is not read as a shorter one
    last = deque(PATTERN.finditer(tail), maxlen=1)
    return (last[0][0].strip(), _value(last[0], percent)) if last else None


def first_number(text: str, percent: str = "fraction") -> Number | None:
    """As :func:`last_number`, for the first.

    >>> first_number("3 of 20")
    ('3', Fraction(3, 1))
    """
    head = text[:TAIL] if len(text) <= TAIL else text[:TAIL].rstrip(PIECES)
    match = PATTERN.search(head)
    return None if match is None else (match[0].strip(), _value(match, percent))


def only_number(text: str, percent: str = "fraction") -> Number | None:
    """As :func:`last_number`; also None if there are several, or the text is too long to tell.

    >>> only_number("3 of 20"), only_number("20 EUR")
    (None, ('20', Fraction(20, 1)))
    """
    found = _numbers(text, percent) if len(text) <= TAIL else []
    return found[0] if len(found) == 1 else None


def _numbers(text: str, percent: str) -> list[Number]:
    return [(match[0].strip(), _value(match, percent)) for match in PATTERN.finditer(text)]


def _value(match: re.Match[str], percent: str) -> Fraction | None:
    sign, digits, exponent, over, percents = match.groups()
    whole, _, decimals = digits.replace(",", "").partition(".")
    if len(whole) + len(decimals) > MAX_DIGITS or len(over or "") > MAX_DIGITS or len(exponent or "") >= 8:
        return None
    value = Fraction(int(whole + decimals), 10 ** len(decimals)) if decimals else Fraction(int(whole))
    if exponent:
        if abs(int(exponent[1:])) > MAX_DIGITS:
            return None
        value *= Fraction(10) ** int(exponent[1:])
    if over:
        if int(over) == 0:
            return None
        value /= int(over)
    if percents and percent == "fraction":
        value /= 100
    if (exponent or len(whole) > 308) and abs(value) > LARGEST:  # fewer digits cannot be out of range
        return None
    return -value if sign in ("-", "\u2212") else value


FINDERS: Mapping[str, Callable[[str, str], Number | None]] = {
    "last": last_number,
    "first": first_number,
    "only": only_number,
}


class NumberCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT}
    OPTIONAL: ClassVar[Keys] = {"tolerance": NUMBER, "relative_tolerance": NUMBER, "which": TEXT, "percent": TEXT}

    def __init__(
        self,
        input: str,
        reference: str,
        tolerance: float = 0.0,
        relative_tolerance: float = 0.0,
        which: str = "last",
        percent: str = "fraction",
    ) -> None:
        for name, given, known in (("which", which, FINDERS), ("percent", percent, PERCENTS)):
            if given not in known:
                raise GraderError(f"unknown {name} {given!r}", fix=f"one of {', '.join(known)}")
        for name, value in (("tolerance", tolerance), ("relative_tolerance", relative_tolerance)):
            if not math.isfinite(value) or value < 0:
                raise GraderError(f"{name} must be a number that is not negative")
        self._input, self._reference = Template(input), Template(reference)
        # str() first: the author wrote 0.01, not the binary fraction nearest to it.
        self._find, self._percent = FINDERS[which], percent
        self._absolute, self._relative = Fraction(str(tolerance)), Fraction(str(relative_tolerance))
        # All rollouts of a group share their reference.
        self._wanted = lru_cache(maxsize=1024)(self._read_reference)

    def mark_one(self, sample: Sample) -> Mark:
        reference = self._reference.render(sample)
        if (wanted := self._wanted(reference)) is None:
            return Mark.failed(f"the reference {shown(reference)} has no number")
        expected, lowest, highest = wanted
        answer = self._input.render(sample)
        found = self._find(answer, self._percent)
        if found is None:
            what = "not one number" if self._find is only_number else "no number"
            return Mark(0.0, None, f"{what} in {shown(answer)}; expected {expected}")
        text, value = found
        if value is None:
            return Mark(0.0, text[:40], f"{text[:40]} is out of range; expected {expected}")
        if lowest <= value <= highest:
            return Mark(1.0, text[:40], "right")
        return Mark(0.0, text[:40], f"{text[:40]}, expected {expected}")

    def _read_reference(self, reference: str) -> tuple[str, Fraction, Fraction] | None:
        """The reference as (its text, the least and the greatest right value), or None."""
        found = last_number(reference, self._percent)
        if found is None:
            return None
        text, goal = found
        if goal is None:
            return None
        slack = self._absolute + self._relative * abs(goal)
        return text, goal - slack, goal + slack
