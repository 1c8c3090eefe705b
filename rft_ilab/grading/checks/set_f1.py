"""``set_f1``: the answer is a list, compared with the reference as a set; the score is F1.

Answer and reference are a JSON array, or items separated by commas, semicolons or line breaks (bullets and numbers
before an item do not count). Items are compared in any case, without outer quotes, trailing periods and extra white
space; numbers and nested values of an array by their JSON text, ``1.0`` as ``1``. F1 is 2 x right / (found + wanted):
a repeated item does not help, and listing everything costs precision. With ``exact`` the score is 1 for the same set,
otherwise 0.

An empty set is written ``[]``; a blank answer is no answer. An answer longer than 100,000 characters is wrong.
Not covered: order, how often an item occurs, ``and`` between the last two items, items with a comma outside JSON.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, ClassVar

from rft_ilab.grading.registry import FLAG, TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template
from rft_ilab.skills.reading import canonical_json, parse_json

LIMIT = 100_000
SEPARATORS = re.compile(r"[,;\n]")
BULLET = re.compile(r"(?:[-*•]|[0-9]{1,4}[.)])\s+")
QUOTES = "\"'`\u201c\u201d\u2018\u2019"


def items(text: str) -> frozenset[str]:
    """The set that a list holds. Raises ValueError (for people) if it starts like an array and is none.

    >>> sorted(items("- Red\\n- green, red."))
    ['green', 'red']
    """
    text = text.strip()
    if text.startswith("["):
        value = parse_json(text)
        # What follows "[" is an array, or parse_json has raised.
        return frozenset(_key(each) for each in value)
    found = {_plain(BULLET.sub("", part.strip(), count=1)) for part in SEPARATORS.split(text)}
    return frozenset(found - {""})


def _key(value: Any) -> str:
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return canonical_json(value)


def _plain(text: str) -> str:
    return " ".join(text.strip().rstrip(".").strip(QUOTES).rstrip(".").split()).casefold()


class SetF1Check:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT}
    OPTIONAL: ClassVar[Keys] = {"exact": FLAG}

    def __init__(self, input: str, reference: str, exact: bool = False) -> None:
        self._input, self._reference, self._exact = Template(input), Template(reference), exact
        # All rollouts of a group share their reference.
        self._wanted = lru_cache(maxsize=1024)(items)

    def mark_one(self, sample: Sample) -> Mark:
        reference = self._reference.render(sample)
        try:
            wanted = self._wanted(reference)
        except ValueError as error:
            return Mark.failed(f"the reference {shown(reference)} is no list: {error}")
        if not wanted and reference.strip() != "[]":
            return Mark.failed("the reference is empty; an empty list is written []")
        answer = self._input.render(sample)
        if len(answer) > LIMIT:
            return Mark(0.0, None, f"the answer is longer than {LIMIT} characters")
        try:
            found = items(answer)
        except ValueError as error:
            return Mark(0.0, None, f"{shown(answer)} is no list: {error}")
        listed = canonical_json(sorted(found))
        if not found and not (answer.strip().startswith("[") and not wanted):
            return Mark(0.0, None, "no items in the answer")
        if found == wanted:
            return Mark(1.0, listed, "right")
        right = len(found & wanted)
        score = 0.0 if self._exact else 2 * right / (len(found) + len(wanted))
        return Mark(score, listed, f"{right} right of {len(found)} found and {len(wanted)} wanted")
