"""Handler of :mod:`.bounded_child` for ``reasoning_gym``. Imports nothing of the project.

Some of the library's scorers call ``eval`` or sympy's ``parse_expr``, which is ``eval``, on the answer. Here the
first reads literals with + - and bit operations on them, the second only what is written with numbers, plain names
and operators.
"""

from __future__ import annotations

import ast
import io
import json
import operator
import sys
import tokenize
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

MAX_EXPRESSION = 4096
UNARY: Mapping[type, Any] = {ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Invert: operator.invert}
BINARY: Mapping[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
}  # fmt: skip
SEQUENCES: Mapping[type, Any] = {ast.List: list, ast.Tuple: tuple, ast.Set: set}
FUNCTIONS = (
    "Abs", "E", "Ei", "Float", "Function", "I", "Integer", "Rational", "Si", "Symbol", "acos", "asin", "atan", "cos",
    "cosh", "cot", "csc", "erf", "exp", "factorial", "gamma", "li", "ln", "log", "nan", "oo", "pi", "sec", "sin",
    "sinh", "sqrt", "tan", "tanh", "zoo",
)  # fmt: skip
OPERATORS = frozenset("+-*/%^!(),=") | {"**", "//"}
# Data sets whose scorer compares tuples; a task's JSON has lists.
TUPLES = ("arc_agi", "rearc")


def arithmetic(text: str, *_: Any) -> Any:
    """In place of ``eval``: literals and arithmetic on them."""
    return _value(ast.parse(text.strip()[:MAX_EXPRESSION], mode="eval").body)


def _value(node: ast.AST) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.UnaryOp():
            return UNARY[type(node.op)](_value(node.operand))
        case ast.BinOp() if type(node.op) in BINARY:
            return BINARY[type(node.op)](_value(node.left), _value(node.right))
        case ast.List() | ast.Tuple() | ast.Set():
            return SEQUENCES[type(node)](_value(each) for each in node.elts)
        case ast.Dict() if None not in node.keys:
            return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    raise ValueError(f"{type(node).__name__} is not allowed")


def expression(text: str, local_dict: Mapping[str, Any] | None = None, **_: Any) -> Any:
    """In place of ``sympy.parse_expr``: no attributes, no texts, no names but symbols and elementary functions."""
    import sympy
    from sympy.parsing.sympy_parser import parse_expr

    if len(text) > MAX_EXPRESSION:
        raise ValueError("the expression is too long")
    for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline):
        known = token.type in (tokenize.NUMBER, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER)
        named = token.type == tokenize.NAME and not token.string.startswith("_") and token.string.isascii()
        symbol = token.type == tokenize.OP and token.string in OPERATORS
        if not (known or named or symbol):
            raise ValueError(f"{token.string[:20]!r} is not allowed")
    names = {name: getattr(sympy, name) for name in FUNCTIONS}
    return parse_expr(text, local_dict=dict(local_dict or {}), global_dict={**names, "__builtins__": {}})


def prepare() -> None:
    import reasoning_gym  # noqa: F401 - registers the data sets
    import sympy

    sympy.parse_expr = expression
    for name, module in list(sys.modules.items()):
        if name.startswith("reasoning_gym."):
            vars(module)["eval"] = arithmetic
            if "parse_expr" in vars(module) and not name.endswith("propositional_logic"):
                vars(module)["parse_expr"] = expression


@cache
def scorer(dataset: str) -> Any:
    from reasoning_gym import get_score_answer_fn

    return get_score_answer_fn(dataset)


def warm(job: dict[str, Any]) -> None:
    """Some scorers load word lists; that is not the answer's time."""
    scorer(job["dataset"])


def reference(job: dict[str, Any]) -> Any:
    if job.get("probe"):
        return None
    entry = json.loads(job["entry"])
    if not isinstance(entry, dict) or not isinstance(entry.get("metadata"), dict) or "answer" not in entry:
        raise ValueError("an entry is an object with question, answer and metadata")
    if job["dataset"] in TUPLES:
        entry["metadata"]["output"] = tuple(map(tuple, entry["metadata"]["output"]))
    if isinstance(entry["answer"], str):  # an entry of another data set is an error, not a wrong answer
        own = scorer(job["dataset"])(entry["answer"], entry)
        if own != 1:
            raise ValueError(f"the entry's own answer scores {own}")
    return MappingProxyType(entry)


def score(expected: Any, job: dict[str, Any]) -> tuple[float, str | None, str]:
    if job.get("probe"):
        return 1.0, None, "known"
    value = float(scorer(job["dataset"])(job["answer"], dict(expected)))
    return value, job["answer"], "right" if value == 1 else f"{str(job['answer'])[:80]!r} scored {value:g}"
