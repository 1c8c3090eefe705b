"""``tool_call``: the answer is one call of the right function with the right arguments.

Answers: ``{"name": ..., "arguments": {...}}``, OpenAI's ``tool_calls`` (a list of one), or Python syntax with named
literal arguments, ``f(a=1)`` or ``[f(a=1)]``, which is parsed and never evaluated. Text around it, a fence, two
calls, positional arguments, and more than 16,384 characters are wrong.

The reference is ``{"name": ..., "arguments": {...}}``, compared as JSON: ``"1"`` is not 1, but 1.0 is. With ``accept``
it follows BFCL (Berkeley Function Calling Leaderboard, "simple"): each argument lists the values that are right, an
empty text in the list makes it optional, BFCL's own form ``[{"f": {"a": [1]}}]`` is read too, and texts are equal
without case, spaces and ``, . / - _ * ^`` (so ``1.5`` as a *text* is ``15``, as in BFCL).

With ``partial`` a call of the right function scores the share of right arguments among those asked for or given. The
name alone earns nothing: it can be guessed from the prompt, and a call with no right argument does nothing right.
A reference without a name is an error, so that no empty call can be right.

Not covered: several calls, types declared in the function's schema (BFCL refuses 5.0 for an integer), whether other
arguments would do as well, names that an API had to change (``math_gcd`` for ``math.gcd``).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.calls import Call, json_call, read_call
from rft_ilab.grading.checks.json_fields import same
from rft_ilab.grading.registry import FLAG, TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template
from rft_ilab.skills.reading import parse_json

IGNORED = re.compile(r"[ ,./\-_*^]")


class ToolCallCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT}
    OPTIONAL: ClassVar[Keys] = {"accept": FLAG, "partial": FLAG}

    def __init__(self, input: str, reference: str, accept: bool = False, partial: bool = False) -> None:
        self._input, self._reference = Template(input), Template(reference)
        self._accept, self._partial = accept, partial

    def mark_one(self, sample: Sample) -> Mark:
        wanted = self._wanted(self._reference.render(sample))
        text = self._input.render(sample)
        try:
            call = read_call(text)
        except ValueError as error:
            return Mark(0.0, None, f"{shown(text)}: {str(error)[:80]}")
        found = str(call)
        if call.name != wanted.name:
            return Mark(0.0, found, f"calls {shown(call.name)}, expected {shown(wanted.name)}")
        problems = {name: problem for name in wanted.arguments if (problem := self._problem(name, call, wanted))}
        problems |= {name: "not asked for" for name in call.arguments if name not in wanted.arguments}
        if not problems:
            return Mark(1.0, found, "right")
        counted = {*call.arguments, *problems}
        name, problem = next(iter(problems.items()))
        share = 1 - len(problems) / len(counted)
        return Mark(share if self._partial else 0.0, found, f"{shown(name)}: {problem}")

    def _problem(self, name: str, call: Call, wanted: Call) -> str:
        right = wanted.arguments[name]
        if name not in call.arguments:
            return "" if self._accept and "" in right else "missing"
        value = call.arguments[name]
        if accepted(value, right) if self._accept else same(value, right):
            return ""
        return f"{shown(repr(value))}, expected {'one of ' if self._accept else ''}{shown(repr(right))}"

    def _wanted(self, text: str) -> Call:
        """Raises GraderError, which is an error of the task."""
        try:
            value = parse_json(text)
            if self._accept and isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
                ((name, arguments),) = value[0].items()
                value = {"name": name, "arguments": arguments}
            wanted = json_call(value)
        except ValueError as error:
            raise GraderError(f"the reference {shown(text)} is no call: {error}") from error
        if self._accept and not all(isinstance(values, list) and values for values in wanted.arguments.values()):
            raise GraderError("with accept, every argument of the reference is a list of values that are right")
        return wanted


def accepted(value: Any, right: Any) -> bool:
    """Whether a value is one of those listed, as BFCL compares.

    >>> accepted("New-York", ["new york", "NYC"]), accepted({"a": 1}, [{"a": [1, 2], "b": ["", 3]}])
    (True, True)
    """
    return any(_matches(value, one) for one in (right if isinstance(right, list) else [right]))


def _matches(value: Any, right: Any) -> bool:
    if isinstance(value, str) and isinstance(right, str):
        return _plain(value) == _plain(right)
    if isinstance(value, list) and isinstance(right, list):
        return len(value) == len(right) and all(_matches(a, b) for a, b in zip(value, right, strict=True))
    if isinstance(value, dict) and isinstance(right, dict):
        missing = [name for name in right if name not in value and not _optional(right[name])]
        return not missing and all(name in right and accepted(value[name], right[name]) for name in value)
    return same(value, right)


def _optional(right: Any) -> bool:
    """Only a list of values can say so: every text contains the empty one."""
    return isinstance(right, list) and "" in right


def _plain(text: str) -> str:
    return IGNORED.sub("", text).lower().replace("'", '"')
