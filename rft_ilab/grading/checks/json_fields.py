"""``json_fields``: the answer is one JSON object whose fields equal those of the reference.

Without ``fields`` all of the reference's are compared. Keys that the reference lacks, duplicate keys and text around
the object are wrong. Values compare strictly: ``"1"`` is not ``1``, ``true`` is not ``1``, but ``1.0`` is ``1``. With
``partial`` the score is the share of right fields (0 if there are extra keys), otherwise 1 or 0. With
``alternatives`` the reference is a list of such objects (or of their JSON texts), and the best counts; that is the
rule of ``JsonMatch`` in openai/evals.

Not covered: lists are compared in order; texts as they are; a schema (see ``json_schema``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import FLAG, TEXT, TEXTS, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template
from rft_ilab.skills.reading import canonical_json, parse_json


def same(a: Any, b: Any) -> bool:
    """JSON equality.

    >>> same({"a": [1]}, {"a": [1.0]}), same(True, 1), same("1", 1)
    (True, False, False)
    """
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    return type(a) is type(b) and bool(a == b)


class JsonFieldsCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT}
    OPTIONAL: ClassVar[Keys] = {"fields": TEXTS, "partial": FLAG, "alternatives": FLAG}

    def __init__(
        self,
        input: str,
        reference: str,
        fields: Sequence[str] | None = None,
        partial: bool = False,
        alternatives: bool = False,
    ) -> None:
        if fields is not None and (not fields or len(set(fields)) != len(fields)):
            raise GraderError("fields must be a list of distinct names", fix="or leave fields out to compare all")
        self._input, self._reference = Template(input), Template(reference)
        self._fields, self._partial, self._alternatives = fields, partial, alternatives
        # All rollouts of a group share their reference.
        self._cached = lru_cache(maxsize=1024)(self._wanted)

    def mark_one(self, sample: Sample) -> Mark:
        wanted = self._cached(self._reference.render(sample))
        if isinstance(wanted, str):
            return Mark.failed(wanted)
        text = self._input.render(sample)
        try:
            answer = parse_json(text)
        except ValueError as error:
            return Mark(0.0, None, f"{shown(text)} is not JSON: {str(error)[:80]}")
        if not isinstance(answer, dict):
            return Mark(0.0, None, f"{shown(text)} is not a JSON object")
        marks = [self._compare(answer, each) for each in wanted]
        return max(marks, key=lambda mark: mark.score or 0.0)

    def _compare(self, answer: dict[str, Any], wanted: dict[str, Any]) -> Mark:
        names = list(wanted) if self._fields is None else self._fields
        found = canonical_json(answer)
        if extra := [key for key in answer if key not in wanted]:
            return Mark(0.0, found, f"unexpected field {shown(extra[0])}")
        wrong = [name for name in names if name not in answer or not same(answer[name], wanted[name])]
        if not wrong:
            return Mark(1.0, found, "right")
        first = wrong[0]
        got = shown(canonical_json(answer[first])) if first in answer else "missing"
        reason = f"{first}: {got}, expected {shown(canonical_json(wanted[first]))}"
        return Mark(1 - len(wrong) / len(names) if self._partial else 0.0, found, reason)

    def _wanted(self, text: str) -> list[dict[str, Any]] | str:
        """The reference objects, or what is wrong with them."""
        try:
            wanted = parse_json(text)
            if self._alternatives and isinstance(wanted, list):
                wanted = [parse_json(each) if isinstance(each, str) else each for each in wanted]
        except ValueError as error:
            return f"the reference is not JSON: {error}"
        if self._alternatives and (not isinstance(wanted, list) or not wanted):
            return "the reference is not a JSON list of objects"
        wanted = wanted if self._alternatives else [wanted]
        for each in wanted:
            if not isinstance(each, dict) or not each:
                return "the reference is not a JSON object with fields"
            if missing := [name for name in self._fields or () if name not in each]:
                return f"the reference has no field {missing[0]!r}"
        return list(wanted)
