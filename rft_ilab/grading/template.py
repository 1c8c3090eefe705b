"""Templates of OpenAI's graders: ``{{item.path}}``, ``{{sample.output_text}}``, ``{{sample.output_json.a[0].b}}``.

Compiled once, filled often. A text is inserted as it is, anything else as canonical JSON.
A field that the item lacks is an error of the task or the grader (GraderError); a field that
the model's output lacks is a wrong answer (Unanswered).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rft_ilab.errors import GraderError
from rft_ilab.grading.sample import Sample, Unanswered
from rft_ilab.skills.reading import canonical_json

STEP = re.compile(r"\.?([^.\[\]{}\s\"']+)|\[(\d{1,9})\]")
OUTPUTS = ("output_text", "output_json", "output_tools")
NO_FIELD = "the task has no field"  # how that error begins; over HTTP it has a flag of its own

FieldPath = tuple[str | int, ...]


class Template:
    """A compiled template. Raises GraderError for one that is malformed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[str | Callable[[Sample], str]] = []
        position = 0
        while (start := text.find("{{", position)) >= 0:
            end = text.find("}}", start)
            if end < 0:
                raise GraderError(f"template {text!r} opens {{{{ and never closes it")
            if start > position:
                self._parts.append(text[position:start])
            self._parts.append(_getter(text[start + 2 : end].strip(), text))
            position = end + 2
        if position < len(text):
            self._parts.append(text[position:])
        first = self._parts[0] if len(self._parts) == 1 else ""
        self._only = None if isinstance(first, str) else first

    def render(self, sample: Sample) -> str:
        """The filled text. Raises GraderError (item lacks a field) or Unanswered (output lacks one)."""
        if self._only is not None:  # nearly every template is one field and nothing else
            return self._only(sample)
        return "".join([part if isinstance(part, str) else part(sample) for part in self._parts])


def parse_path(expression: str, template: str) -> FieldPath:
    """``a.b[0].c`` -> ``("a", "b", 0, "c")``. Raises GraderError naming the template.

    >>> parse_path("item.a[0].b", "")
    ('item', 'a', 0, 'b')
    """
    path: list[str | int] = []
    position = 0
    while position < len(expression):
        match = STEP.match(expression, position)
        # A dot leads every name but the first; an index never follows a dot.
        if not match or (match[1] is not None and (expression[position] == ".") != bool(path)):
            raise GraderError(f"bad path {expression!r} in template {template!r}", fix="write {{item.a.b[0]}}")
        path.append(match[1] if match[1] is not None else int(match[2]))
        position = match.end()
    return tuple(path)


def _getter(expression: str, template: str) -> Callable[[Sample], str]:
    path = parse_path(expression, template)
    if path[:1] == ("item",) and len(path) > 1:
        steps = path[1:]
        return lambda sample: _text(_item_field(sample, steps, expression))
    if path == ("sample", "output_text"):
        return lambda sample: sample.text
    if path[:1] == ("sample",) and len(path) > 1 and path[1] in OUTPUTS[1:]:
        return lambda sample: _text(_output_field(sample, path, expression))
    known = "known: item.FIELD, " + ", ".join(f"sample.{name}" for name in OUTPUTS)
    raise GraderError(f"unknown name {expression!r} in template {template!r}", fix=known)


def _item_field(sample: Sample, steps: FieldPath, expression: str) -> Any:
    try:
        return _follow(sample.item, steps)
    except LookupError as error:
        raise GraderError(f"{NO_FIELD} {expression}") from error


def _output_field(sample: Sample, path: FieldPath, expression: str) -> Any:
    root: Any = sample.json if path[1] == "output_json" else []
    try:
        return _follow(root, path[2:])
    except LookupError as error:
        raise Unanswered(f"the answer has no {expression.removeprefix('sample.')}") from error


def _follow(value: Any, path: FieldPath) -> Any:
    for step in path:
        if isinstance(step, str):
            if not isinstance(value, dict | Mapping):  # dict first: asking an abstract class costs as much as a lookup
                raise LookupError(step)
            value = value[step]
        elif isinstance(value, list | tuple):
            value = value[step]
        else:
            raise LookupError(step)
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)
