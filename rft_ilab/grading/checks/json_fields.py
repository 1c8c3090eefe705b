"""``json_fields``: the answer is one JSON object whose fields equal those of the reference.

Without ``fields`` all of the reference's are compared. Keys that the reference lacks, duplicate keys and text
around the object are wrong. Values compare strictly: ``"1"`` is not ``1``, ``true`` is not ``1``, but ``1.0`` is ``1``.
With ``partial`` the score is the share of right fields (0 if there are extra keys), otherwise 1 or 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rft_ilab.errors import GraderError
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
    def __init__(self, input: str, reference: str, fields: Sequence[str] | None = None, partial: bool = False) -> None:
        if fields is not None and (not fields or len(set(fields)) != len(fields)):
            raise GraderError("fields must be a list of distinct names", fix="or leave fields out to compare all")
        self._input, self._reference = Template(input), Template(reference)
        self._fields, self._partial = fields, partial

    def mark_one(self, sample: Sample) -> Mark:
        wanted = self._wanted(self._reference.render(sample))
        if isinstance(wanted, str):
            return Mark.failed(wanted)
        names = list(wanted) if self._fields is None else self._fields
        text = self._input.render(sample)
        try:
            answer = parse_json(text)
        except ValueError as error:
            return Mark(0.0, None, f"{shown(text)} is not JSON: {str(error)[:80]}")
        if not isinstance(answer, dict):
            return Mark(0.0, None, f"{shown(text)} is not a JSON object")
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

    def _wanted(self, text: str) -> dict[str, Any] | str:
        """The reference object, or what is wrong with it."""
        try:
            wanted = parse_json(text)
        except ValueError as error:
            return f"the reference is not JSON: {error}"
        if not isinstance(wanted, dict) or not wanted:
            return "the reference is not a JSON object with fields"
        missing = [name for name in self._fields or () if name not in wanted]
        return f"the reference has no field {missing[0]!r}" if missing else wanted
