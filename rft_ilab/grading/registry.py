"""Which class checks which ``type`` of grader, and whether its keys are what the class takes.

A family is loaded when a grader first asks for it, so a lint of labels imports no sympy and no sacrebleu. Each class
says itself which keys it takes: ``REQUIRED`` and ``OPTIONAL`` map a key to the kind of its value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from rft_ilab.errors import GraderError

TEXT, TEXTS, NUMBER, INTEGER, FLAG, OBJECT, ANY, MESSAGES = (
    "a text",
    "a list of texts",
    "a number",
    "a whole number",
    "true or false",
    "an object",
    "any JSON value",
    "a list of messages",
)

Keys = Mapping[str, str]

# type -> module below rft_ilab.grading and class; OpenAI's own first.
FAMILIES: Mapping[str, str] = {
    "string_check": "checks.string_check:StringCheck",
    "text_similarity": "checks.text_similarity:TextSimilarityCheck",
    "score_model": "checks.judge:ScoreModelCheck",
    "label_model": "checks.judge:LabelModelCheck",
    "python": "python:PythonCheck",
    "endpoint": "checks.endpoint:EndpointCheck",
    "label": "checks.label:LabelCheck",
    "number": "checks.number:NumberCheck",
    "math": "checks.mathematics:MathCheck",
    "json_fields": "checks.json_fields:JsonFieldsCheck",
    "json_schema": "checks.json_schema:JsonSchemaCheck",
    "date": "checks.date:DateCheck",
    "set_f1": "checks.set_f1:SetF1Check",
    "regex": "checks.regex:RegexCheck",
    "ifeval": "checks.ifeval:IfevalCheck",
    "sql": "checks.sql:SqlCheck",
    "code": "checks.code:CodeCheck",
    "tool_call": "checks.tool_call:ToolCallCheck",
    "text_match": "checks.text_match:TextMatchCheck",
    "reasoning_gym": "checks.reasoning_gym:ReasoningGymCheck",
}
NAMES = (*FAMILIES, "multi", "ref")


def family(kind: Any) -> Any:
    """The class of a grader type. Raises GraderError for an unknown type or a package that is not installed."""
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise GraderError(f"unknown grader type {kind!r}", fix=f"one of {', '.join(NAMES)}")
    module, _, name = FAMILIES[kind].partition(":")
    try:
        return getattr(import_module(f"rft_ilab.grading.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("rft_ilab"):
            raise
        raise GraderError(
            f"a {kind} grader needs the package {error.name!r}", fix=f"pip install {error.name}"
        ) from error


def arguments(config: Mapping[str, Any], required: Keys, optional: Keys) -> dict[str, Any]:
    """The arguments of a grader object, each of the right kind. Raises GraderError that names the key."""
    kind, known = config["type"], {**required, **optional}
    given = {key: value for key, value in config.items() if key not in ("type", "name")}
    if not isinstance(config.get("name", ""), str):
        raise GraderError("name must be a text")
    for key in required:
        if key not in given:
            raise GraderError(f"{kind} grader has no {key!r}")
    for key, value in given.items():
        if key not in known:
            raise GraderError(f"unknown key {key!r} in a {kind} grader", fix=f"known: name, {', '.join(known)}")
        if not _IS[known[key]](value):
            raise GraderError(f"{key!r} of a {kind} grader must be {known[key]}")
    return given


def _list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(isinstance(each, kind) for each in value)


_IS: Mapping[str, Callable[[Any], bool]] = {
    TEXT: lambda value: isinstance(value, str),
    TEXTS: _list_of(str),
    # Integers of JSON may be larger than any float, and then no arithmetic with floats is possible.
    NUMBER: lambda value: isinstance(value, float) or (type(value) is int and abs(value) <= sys.float_info.max),
    INTEGER: lambda value: isinstance(value, int) and not isinstance(value, bool),
    FLAG: lambda value: isinstance(value, bool),
    OBJECT: lambda value: isinstance(value, dict),
    ANY: lambda value: True,
    MESSAGES: _list_of(dict),
}
