"""``date``: the whole answer is one date, and the right day.

Read: ``2024-01-05`` (also with ``/`` or ``.``), ``5 January 2024``, ``Jan. 5th, 2024``, ``the 5th of January 2024``,
each with a weekday before it, which must be the right one. ``05/01/2024`` is read only with ``order``: ``dmy`` or
``mdy``. The reference is an ISO date. A date that does not exist, or a date within a sentence, is wrong. Answers of
more than 64 characters are wrong.

Not covered: times of day, years of two digits, ranges, relative dates, languages other than English.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template

LIMIT = 64
ORDERS = ("dmy", "mdy")
MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
NAME = r"(?P<month>[a-z]{3,9})\.?"
DAY = r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?"
YEAR = r"(?P<year>[0-9]{4})"
WEEKDAY = re.compile(r"(?P<weekday>[a-z]{3,9})\.?,? +(?=[0-9a-z])")
ISO = re.compile(rf"{YEAR}(?P<sep>[-/.])(?P<month>[0-9]{{1,2}})(?P=sep)(?P<day>[0-9]{{1,2}})")
WRITTEN = (
    re.compile(rf"(?:the +)?{DAY}(?: +of)? *[- ] *{NAME},? *[- ] *{YEAR}"),
    re.compile(rf"{NAME} +(?:the +)?{DAY},? +{YEAR}"),
    re.compile(rf"{YEAR} +{NAME} +{DAY}"),
)
NUMERIC = re.compile(rf"(?P<a>[0-9]{{1,2}})(?P<sep>[-/.])(?P<b>[0-9]{{1,2}})(?P=sep){YEAR}")


def read_date(text: str, order: str | None = None) -> datetime.date | None:
    """The day that a text is, or None.

    >>> read_date("Friday, Jan. 5th, 2024"), read_date("5/1/2024"), read_date("5/1/2024", "dmy")
    (datetime.date(2024, 1, 5), None, datetime.date(2024, 1, 5))
    """
    text = text.strip()
    if len(text) > LIMIT:
        return None
    text = text.strip("\"'`*").removesuffix(".").lower()
    weekday = None
    if (named := WEEKDAY.match(text)) and (weekday := _index(named["weekday"], DAYS)) is not None:
        text = text[named.end() :]
    day = _day(text, order)
    return day if day is None or weekday is None or day.weekday() == weekday else None


def _day(text: str, order: str | None) -> datetime.date | None:
    if match := ISO.fullmatch(text):
        return _date(match["year"], int(match["month"]), match["day"])
    if order and (match := NUMERIC.fullmatch(text)):
        day, month = (match["a"], match["b"]) if order == "dmy" else (match["b"], match["a"])
        return _date(match["year"], int(month), day)
    for pattern in WRITTEN:
        if match := pattern.fullmatch(text):
            index = _index(match["month"], MONTHS)
            return None if index is None else _date(match["year"], index + 1, match["day"])
    return None


def _index(name: str, names: Sequence[str]) -> int | None:
    """A name may be cut to three letters (``sept``, ``tues``, ``thurs`` are usual too)."""
    for index, full in enumerate(names):
        if name == full or (full.startswith(name) and (len(name) == 3 or name in ("sept", "tues", "thur", "thurs"))):
            return index
    return None


def _date(year: str, month: int, day: str) -> datetime.date | None:
    try:
        return datetime.date(int(year), month, int(day))
    except ValueError:
        return None


class DateCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT}
    OPTIONAL: ClassVar[Keys] = {"order": TEXT}

    def __init__(self, input: str, reference: str, order: str | None = None) -> None:
        if order is not None and order not in ORDERS:
            raise GraderError(f"unknown order {order!r}", fix=f"one of {', '.join(ORDERS)}, or leave it out")
        self._input, self._reference, self._order = Template(input), Template(reference), order

    def mark_one(self, sample: Sample) -> Mark:
        reference = self._reference.render(sample).strip()
        match = ISO.fullmatch(reference)
        wanted = _date(match["year"], int(match["month"]), match["day"]) if match and match["sep"] == "-" else None
        if wanted is None:
            return Mark.failed(f"the reference {shown(reference)} is no ISO date")
        answer = self._input.render(sample)
        found = read_date(answer, self._order)
        if found is None:
            return Mark(0.0, None, f"{shown(answer)} is no date; expected {wanted}")
        right = found == wanted
        return Mark(float(right), found.isoformat(), "right" if right else f"{found}, expected {wanted}")
