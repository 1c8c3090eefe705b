"""Which grader fits right answers that are known: the strictest kind that accepts all of them, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rft_ilab.errors import GraderError
from rft_ilab.grading.engine import compile_check
from rft_ilab.grading.sample import Sample
from rft_ilab.skills.reading import parse_json
from rft_ilab.skills.tasks import MAX_CLASSES

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
NUMBER = re.compile(r"[-+−]?[$€£]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?%?")
WORDS = re.compile(r"[^\W\d_]+(?:[ ,.'’-]+[^\W\d_]+)*[.!]?")
MAX_LABEL, MAX_TEXT = 60, 200  # characters
ROWS_PER_CLASS = 5
TRIED = 2000  # references that a proposal is tried on


@dataclass(frozen=True, slots=True)
class Proposal:
    """A grader object, its kind as flags name it, and one clause that says why it fits."""

    kind: str
    grader: Mapping[str, Any]
    why: str


def _common(kind: str, **keys: Any) -> dict[str, Any]:
    return {"type": kind, "input": "{{sample.output_text}}", "reference": "{{item.reference}}", **keys}


def _label(references: Sequence[str]) -> dict[str, Any]:
    return _common("label", labels=[label for label, _ in Counter(references).most_common()])


KINDS: Mapping[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "date": lambda references: _common("date"),
    "number": lambda references: _common("number"),
    "json": lambda references: _common("json_fields"),
    "label": _label,
    "text": lambda references: _common("text_match", rule="squad", score="equal"),
    "exact": lambda references: _common("string_check", operation="eq"),
}


def grader_of_kind(kind: str, references: Sequence[str], name: str) -> dict[str, Any]:
    """The grader that the flag ``kind`` stands for, named ``name``."""
    made = KINDS[kind]([reference.strip() for reference in references])
    return {"type": made.pop("type"), "name": name, **made}


def propose(references: Sequence[str], name: str) -> Proposal | None:
    """The first of date, number, JSON, label, text, exact that fits; None for free text, which no program can grade.

    >>> propose(["4", "1,250"], "total").grader["type"], propose(["YES", "NO"] * 9, "answer").why
    ('number', '2 different answers in 18 rows')
    """
    texts = [reference.strip() for reference in references]
    reasons = {
        "date": _when(all(map(DAY.fullmatch, texts)), "every answer is a date"),
        "number": _when(all(map(NUMBER.fullmatch, texts)), "every answer is a number"),
        "json": _when(all(map(_is_object, texts)), "every answer is a JSON object"),
        "label": _few(texts),
        "text": _when(_short(texts) and all(map(WORDS.fullmatch, texts)), "short answers in words; signs do not count"),
        "exact": _when(_short(texts), "short answers, each of which is right only as it stands"),
    }
    for kind, why in reasons.items():
        if texts and why:
            grader = grader_of_kind(kind, texts, name)
            if _accepts_all(grader, texts[:TRIED]):
                return Proposal(kind, grader, why)
    return None


def _when(condition: bool, why: str) -> str:
    return why if condition else ""


def _short(texts: Sequence[str]) -> bool:
    return all(text and len(text) <= MAX_TEXT and "\n" not in text for text in texts)


def _few(texts: Sequence[str]) -> str:
    """Answers are classes when there are few of them and each comes often."""
    distinct = set(texts)
    classes = 2 <= len(distinct) <= MAX_CLASSES and ROWS_PER_CLASS * len(distinct) <= len(texts)
    if not classes or any(len(text) > MAX_LABEL or "\n" in text for text in distinct):
        return ""
    return f"{len(distinct)} different answers in {len(texts)} rows"


def _is_object(text: str) -> bool:
    try:
        return text.startswith("{") and isinstance(parse_json(text), dict)
    except ValueError:
        return False


def _accepts_all(grader: Mapping[str, Any], texts: Sequence[str]) -> bool:
    try:
        marks = compile_check(grader).mark([Sample(text, {"reference": text}) for text in texts])
    except GraderError:  # two labels that are the same once normalised
        return False
    return all(mark.score == 1.0 for mark in marks)
