"""``calculate_output`` of OpenAI's ``multi``: ``+ - * / ^``, parentheses, numbers, names and ten functions.

A recursive descent parser builds closures; there is no ``eval``. ``^`` binds tightest, to the right,
and before a sign: ``-2^2`` is -4 and ``2^-1`` is 0.5. Arithmetic is that of floats; what has no real value
raises ArithmeticError or ValueError when it is calculated.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence

from rft_ilab.errors import GraderError

Term = Callable[[Mapping[str, float]], float]
Operation = Callable[[float, float], float]
TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[-+*/^(),]))"
)
ONE: Mapping[str, Callable[[float], float]] = {
    "abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp, "sqrt": math.sqrt, "log": math.log,
}  # fmt: skip
MANY: Mapping[str, Callable[..., float]] = {"min": min, "max": max}
PLUS_MINUS: Mapping[str, Operation] = {"+": operator.add, "-": operator.sub}
TIMES_OVER: Mapping[str, Operation] = {"*": operator.mul, "/": operator.truediv}
MAX_LENGTH = 2000
MAX_DEPTH = 40


class Formula:
    """A parsed formula. ``names`` are the variables it uses. Raises GraderError naming what is wrong.

    >>> Formula("0.5 * a + 0.5 * max(b, 0)")({"a": 1.0, "b": 0.0})
    0.5
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self._tokens = self._scan(text)
        self._position = self._depth = 0
        self._term = self._sum()
        if self._peek():
            raise self._bad(f"unexpected {self._peek()!r}")

    def __call__(self, values: Mapping[str, float]) -> float:
        """Raises ArithmeticError or ValueError where there is no value (1/0, sqrt(-1), overflow)."""
        return float(self._term(values))

    def _scan(self, text: str) -> list[str]:
        if len(text) > MAX_LENGTH:
            raise GraderError(f"formula is longer than {MAX_LENGTH} characters")
        tokens, position, text = [], 0, text.rstrip()
        while position < len(text):
            match = TOKEN.match(text, position)
            if not match:
                raise self._bad(f"unexpected {text[position:].lstrip()[:1]!r}")
            tokens.append(match[0].strip())
            position = match.end()
        return tokens

    def _bad(self, what: str) -> GraderError:
        return GraderError(f"{what} in formula {self.text!r}", fix="use + - * / ^ ( ) and min max " + " ".join(ONE))

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _take(self, wanted: str = "") -> str:
        token = self._peek()
        if wanted and token != wanted:
            raise self._bad(f"expected {wanted!r}, not {token!r}" if token else f"missing {wanted!r}")
        self._position += 1
        return token

    def _sum(self) -> Term:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._bad("too deep nesting")
        first, rest = self._product(), []
        while self._peek() in ("+", "-"):
            rest.append((PLUS_MINUS[self._take()], self._product()))
        self._depth -= 1
        return _chain(first, rest)

    def _product(self) -> Term:
        first, rest = self._signed(), []
        while self._peek() in ("*", "/"):
            rest.append((TIMES_OVER[self._take()], self._signed()))
        return _chain(first, rest)

    def _signed(self) -> Term:
        negative = False
        while self._peek() in ("+", "-") and self._peek():
            negative ^= self._take() == "-"
        term = self._power()
        return _negated(term) if negative else term

    def _power(self) -> Term:
        base = self._atom()
        if self._peek() != "^":
            return base
        self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._bad("too deep nesting")
        exponent = self._signed()
        self._depth -= 1
        return lambda values: math.pow(base(values), exponent(values))

    def _atom(self) -> Term:
        token = self._take()
        if token == "(":
            term = self._sum()
            self._take(")")
            return term
        if token[:1].isdigit() or token[:1] == ".":
            number = float(token)
            return lambda values: number
        if not token or not (token[0].isalpha() or token[0] == "_"):
            raise self._bad(f"unexpected {token!r}" if token else "unexpected end")
        if self._peek() == "(":
            return self._call(token)
        self.names.add(token)
        return lambda values: values[token]

    def _call(self, name: str) -> Term:
        if name not in ONE and name not in MANY:
            raise self._bad(f"unknown function {name!r}")
        self._take("(")
        arguments = [self._sum()]
        while self._peek() == ",":
            self._take()
            arguments.append(self._sum())
        self._take(")")
        if name in MANY:
            pick = MANY[name]
            return lambda values: pick([argument(values) for argument in arguments])
        if len(arguments) != 1:
            raise self._bad(f"{name} takes one argument, not {len(arguments)}")
        apply, (argument,) = ONE[name], arguments
        return lambda values: apply(argument(values))


def _chain(first: Term, rest: Sequence[tuple[Operation, Term]]) -> Term:
    """From left to right, in a loop: a thousand terms inside each other would be too deep to call."""
    if not rest:
        return first

    def term(values: Mapping[str, float]) -> float:
        value = first(values)
        for operation, operand in rest:
            value = operation(value, operand(values))
        return value

    return term


def _negated(a: Term) -> Term:
    return lambda values: -a(values)
