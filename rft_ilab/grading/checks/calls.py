"""Read one tool call out of a text: JSON as models and OpenAI's API write it, or Python syntax (never evaluated)."""

from __future__ import annotations

import ast
import json
import math
import warnings
from dataclasses import dataclass
from typing import Any

from rft_ilab.skills.reading import parse_json

MAX_CHARACTERS = 16_384
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)


def read_call(text: str) -> Call:
    """Exactly one call and nothing around it. Raises ValueError with a message for people.

    >>> read_call('{"name": "f", "arguments": {"a": 1}}') == read_call("f(a=1)") == read_call("[f(a=1)]")
    True
    >>> read_call('[{"type": "function", "function": {"name": "f", "arguments": "{\\\\"a\\\\": 1}"}}]').arguments
    {'a': 1}
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS} characters")
    text = text.strip()
    if not text:
        raise ValueError("no answer")
    try:
        value = parse_json(text)
    except ValueError as error:
        if text[0] == "{" or text.startswith("[{"):
            raise ValueError(f"not JSON: {error}") from error
        return _python_call(text)
    return json_call(value)


def json_call(value: Any) -> Call:
    """``{"name", "arguments"}``, ``{"function": {"name", "arguments"}}``, or a list of one. Raises ValueError."""
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"{len(value)} calls, not one")
        value = value[0]
    if (
        isinstance(value, dict)
        and isinstance(value.get("function"), dict)
        and value.get("type", "function") == ("function")
    ):
        value = value["function"]
    if not isinstance(value, dict) or value.keys() != {"name", "arguments"}:
        raise ValueError("no object with exactly name and arguments")
    name, arguments = value["name"], value["arguments"]
    if isinstance(arguments, str):  # OpenAI's API
        arguments = parse_json(arguments)
    if not isinstance(name, str) or not name.strip():
        raise ValueError("the call has no name")
    if not isinstance(arguments, dict):
        raise ValueError("the arguments are no object")
    return Call(name, arguments)


def _python_call(text: str) -> Call:
    try:
        with warnings.catch_warnings():  # of odd escapes and the like
            warnings.simplefilter("ignore")
            node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError("neither JSON nor a call in Python's syntax") from error
    if isinstance(node, ast.List | ast.Tuple):
        if len(node.elts) != 1:
            raise ValueError(f"{len(node.elts)} calls, not one")
        node = node.elts[0]
    if not isinstance(node, ast.Call):
        raise ValueError("no call")
    if node.args:
        raise ValueError("an argument without a name")
    names = [keyword.arg for keyword in node.keywords]
    if None in names or len(set(names)) != len(names):
        raise ValueError("an argument that is unpacked or given twice")
    return Call(_name(node.func), {str(word.arg): _literal(word.value, 1) for word in node.keywords})


def _name(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ValueError("the call has no plain name")
    return ".".join([node.id, *reversed(parts)])


def _literal(node: ast.expr, depth: int) -> Any:
    """The JSON value of a literal; tuples are lists. Raises ValueError for anything else."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    match node:
        case ast.Constant(value=None | bool() | str() as value):
            return value
        case ast.Constant(value=int() | float() as value) if _is_finite(value):
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() as value)) if (
            _is_finite(value) and not isinstance(value, bool)
        ):
            return -value if isinstance(node.op, ast.USub) else value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item, depth + 1) for item in items]
        case ast.Dict(keys=keys, values=values):
            names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
                raise ValueError("a dictionary whose keys are not different texts")
            return {str(name): _literal(value, depth + 1) for name, value in zip(names, values, strict=True)}
    raise ValueError("an argument that is no literal")


def _is_finite(value: float) -> bool:
    """``math.isfinite`` fails on integers that no float holds; those are finite."""
    return isinstance(value, int) or math.isfinite(value)
