r"""``json_schema``: the answer is one JSON value, nothing around it, that a JSON Schema accepts.

Checked with the library jsonschema; the draft is that of ``$schema``, otherwise 2020-12 (https://json-schema.org).
The answer is read strictly: no duplicate keys, no NaN, at most 64 levels. ``format`` is an annotation, as the
specification says. Nothing is ever fetched: ``$ref`` reaches the schema itself and the published meta-schemas.

Patterns run on google-re2, in linear time; look-around and back-references do not build, ``\uXXXX`` and
``\p{Letter}`` do. ``uniqueItems`` compares keys in place of all pairs. Checking stops after 50,000 steps (keywords
times values): then the answer is wrong. If the schema is at fault, its own reference is wrong too, and lint says so.
An answer longer than 200,000 characters is wrong.

Not covered: what the values mean. A schema that accepts too much rewards the shortest JSON that fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from threading import Lock
from types import FunctionType, SimpleNamespace
from typing import Any, ClassVar

import jsonschema_specifications
from jsonschema import FormatChecker, validators
from jsonschema.exceptions import SchemaError, UnknownType, ValidationError
from referencing.exceptions import Unresolvable

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.regex import compiled, searchable
from rft_ilab.grading.registry import OBJECT, TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template
from rft_ilab.skills.reading import parse_json

LIMIT = 200_000
STEPS = 50_000
MAX_SUBSCHEMAS = 10_000
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
# Escapes of ECMA-262 that re2 writes differently; the last part skips escaped backslashes.
ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|([pP])\{([A-Za-z_]+)\}|.)", re.DOTALL)
CATEGORIES: Mapping[str, str] = {
    "Letter": "L", "Lowercase_Letter": "Ll", "Uppercase_Letter": "Lu", "Mark": "M", "Number": "N", "digit": "Nd",
    "Decimal_Number": "Nd", "Punctuation": "P", "punct": "P", "Symbol": "S", "Separator": "Z", "Other": "C",
}  # fmt: skip

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


class TooManySteps(Exception):
    """The answer, or the schema, asks for more work than is allowed."""


@lru_cache(maxsize=1024)
def _search(pattern: str) -> Callable[[str], Any]:
    search: Callable[[str], Any] = compiled(ESCAPE.sub(_as_re2, pattern)).search
    return search


def _as_re2(escape: re.Match[str]) -> str:
    if escape[1]:
        return f"\\x{{{escape[1]}}}"
    return f"\\{escape[2]}{{{CATEGORIES[escape[3]]}}}" if escape[3] in CATEGORIES else escape[0]


def _found(pattern: str, text: str) -> bool:
    return _search(pattern)(searchable(text)) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _found(pattern, instance):
        yield ValidationError(f"{shown(instance)} does not match {shown(pattern)}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, sub in patterns.items():
            for key, value in instance.items():
                if _found(pattern, key):
                    yield from validator.descend(value, sub, path=key, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, value in instance.items():
        if key not in named and not any(_found(pattern, key) for pattern in patterns):
            if isinstance(allowed, dict):
                yield from validator.descend(value, allowed, path=key)
            elif not allowed:
                yield ValidationError(f"unexpected property {shown(key)}")


def _unique_items(validator: Any, unique: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if unique and isinstance(instance, list):
        keys = set(map(_identity, instance))
        if len(keys) != len(instance):
            yield ValidationError("has items that are not unique")


def _identity(value: Any) -> Any:
    """Equal for equal JSON values: ``1`` and ``1.0`` are, ``1`` and ``true`` are not."""
    if isinstance(value, dict):
        return ("object", frozenset((key, _identity(each)) for key, each in value.items()))
    if isinstance(value, list):
        return ("array", tuple(map(_identity, value)))
    return ("boolean" if isinstance(value, bool) else "value", value)


def _exactly(keyword: Keyword) -> Keyword:
    """The library's ``multipleOf``, which divides as floats do; integers that no float can hold are divided exactly."""

    def multiple_of(validator: Any, step: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        try:
            yield from keyword(validator, step, instance, schema) or ()
        except OverflowError:
            if (Fraction(instance) / Fraction(step)).denominator != 1:
                yield ValidationError(f"{shown(repr(instance))} is not a multiple of {shown(repr(step))}")

    return multiple_of


REPLACED: Mapping[str, Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}


def _with_re2(keyword: Any) -> Keyword:
    """The library's ``unevaluatedProperties``, whose helper searches with ``re``, searching with re2 instead."""
    helper = keyword.__globals__["find_evaluated_property_keys_by_schema"]
    scope = {**helper.__globals__, "re": SimpleNamespace(search=_found)}
    scope[helper.__name__] = FunctionType(helper.__code__, scope, helper.__name__, helper.__defaults__)
    return FunctionType(keyword.__code__, {**keyword.__globals__, helper.__name__: scope[helper.__name__]})


def _keywords(library: Mapping[str, Any], spent: list[int]) -> dict[str, Keyword]:
    """The keywords of a draft, ours in place of some, each counting its steps."""
    keywords = {**library, **{name: own for name, own in REPLACED.items() if name in library}}
    for name in {"multipleOf", "divisibleBy"} & set(library):
        keywords[name] = _exactly(library[name])
    if "unevaluatedProperties" in library:
        keywords["unevaluatedProperties"] = _with_re2(library["unevaluatedProperties"])
    return {name: _counted(keyword, spent, name.startswith("unevaluated")) for name, keyword in keywords.items()}


def _counted(keyword: Keyword, spent: list[int], quadratic: bool) -> Keyword:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
        # A keyword may look at every item or property, for each of its own values; those are steps too.
        size = len(instance) if isinstance(instance, dict | list) else 1
        own = len(value) if isinstance(value, dict | list) else 1
        spent[0] += 1 + size + own + (size * size // 64 if quadratic else 0)
        if spent[0] > STEPS:
            raise TooManySteps
        return keyword(validator, value, instance, schema)

    return counted


class JsonSchemaCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "schema": OBJECT}
    OPTIONAL: ClassVar[Keys] = {}

    def __init__(self, input: str, schema: Mapping[str, Any]) -> None:
        self._input = Template(input)
        named = schema.get("$schema", "")
        if not isinstance(named, str):
            raise GraderError(f"$schema {shown(str(named))} is not a text")
        default = None if named else validators.Draft202012Validator
        base: Any = validators.validator_for(schema, default=default)  # type: ignore[arg-type]
        if base is None:
            raise GraderError(
                f"unknown draft $schema {shown(str(named))}", fix="one of json-schema.org, or leave it out"
            )
        self._base = base
        try:
            base.check_schema(schema, format_checker=FormatChecker(formats=()))  # patterns are re2's, not those of re
            self._check_references(schema)
        except SchemaError as error:
            raise GraderError(f"the schema is wrong at {error.json_path}: {error.message[:200]}") from error
        except RecursionError as error:
            raise GraderError("the schema is nested too deeply") from error
        except (AttributeError, TypeError) as error:  # of the walk through parts that old meta-schemas do not check
            raise GraderError(f"a part of the schema is no schema: {error}") from error
        self._spent, self._lock = [0], Lock()
        keywords = _keywords(base.VALIDATORS, self._spent)
        self._validator = validators.extend(base, validators=keywords)(
            schema, registry=jsonschema_specifications.REGISTRY, format_checker=None
        )

    def _check_references(self, schema: Mapping[str, Any]) -> None:
        """Every reference leads somewhere, every pattern compiles. Raises GraderError."""
        from referencing.jsonschema import specification_with

        root = specification_with(self._base.META_SCHEMA["$schema"]).create_resource(dict(schema))
        todo = [(root, jsonschema_specifications.REGISTRY.resolver_with_root(root))]
        for _ in range(MAX_SUBSCHEMAS + 1):
            if not todo:
                return
            resource, resolver = todo.pop()
            sub = resource.contents
            if not isinstance(sub, Mapping):
                continue
            for name in REFERENCES:
                if isinstance(target := sub.get(name), str):
                    self._resolve(resolver, target, name)
                elif name in sub and name in self._base.VALIDATORS:  # the meta-schema of draft 4 does not say so
                    raise GraderError(f"{name} {shown(str(target))} is not a text")
            for pattern in (sub.get("pattern"), *sub.get("patternProperties", ())):
                if isinstance(pattern, str):
                    _search(pattern)
            todo += [(child, resolver.in_subresource(child)) for child in resource.subresources()]
        raise GraderError(f"the schema has more than {MAX_SUBSCHEMAS} parts")

    def _resolve(self, resolver: Any, target: str, name: str) -> None:
        try:
            resolver.lookup(target)
        except (Unresolvable, ValueError) as error:
            raise GraderError(
                f"{name} {shown(target)} leads nowhere", fix="nothing is fetched: copy it to $defs"
            ) from error

    def mark_one(self, sample: Sample) -> Mark:
        text = self._input.render(sample)
        if len(text) > LIMIT:
            return Mark(0.0, None, f"the answer is longer than {LIMIT} characters")
        try:
            value = parse_json(text)
        except ValueError as error:
            return Mark(0.0, None, f"{shown(text)} is not JSON: {str(error)[:80]}")
        try:
            with self._lock:  # the count belongs to one answer
                self._spent[0] = 0
                problem = next(self._validator.iter_errors(value), None)
        except TooManySteps:
            return Mark(0.0, text, f"checking the answer takes more than {STEPS} steps")
        except Unresolvable as error:
            return Mark.failed(f"a reference of the schema leads nowhere: {error}")
        except UnknownType as error:  # draft 3 knows them only here
            return Mark.failed(f"the schema has the unknown type {shown(str(error.type))}")
        except RecursionError:
            return Mark.failed("the schema refers to itself without end")
        if problem is None:
            return Mark(1.0, text, "right")
        return Mark(0.0, text, f"{problem.json_path[:80]}: {shown(problem.message, 160)}")
