"""The child that runs tests. Standard library only; never shares its interpreter with the code under test.

The functions that the solution defines are stand-ins here: each call goes to the solution's own process, and only a
plain value comes back. So no ``__eq__``, no subclass and no patched builtin of the solution meets an ``assert``.
"""

from __future__ import annotations

import builtins
import keyword
import os
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, NoReturn

from rft_ilab.grading.cage import frames, values
from rft_ilab.grading.cage.channel import Receive, Send, as_bytes, describe

FILE_NAME = "<test>"
# What a solution may raise into a test. Not StopIteration: `all(map(check, cases))` would end early and be true.
RAISABLE = {
    kind.__name__: kind
    for kind in (
        ArithmeticError,
        AssertionError,
        AttributeError,
        BufferError,
        EOFError,
        Exception,
        FileNotFoundError,
        FloatingPointError,
        IndexError,
        KeyError,
        LookupError,
        MemoryError,
        NameError,
        NotImplementedError,
        OSError,
        OverflowError,
        PermissionError,
        RecursionError,
        RuntimeError,
        TimeoutError,
        TypeError,
        UnicodeDecodeError,
        UnicodeEncodeError,
        UnicodeError,
        ValueError,
        ZeroDivisionError,
    )
}


# Reach names by a text, which subject() does not see.
BY_TEXT = ("eval", "exec", "compile", "globals", "locals", "vars")


class FromSolution(Exception):
    """Marks what the solution raised, also a subclass of the builtin that it raised."""

    def __init__(self, text: str) -> None:
        Exception.__init__(self, text)
        self.text = text

    def __str__(self) -> str:
        return self.text


class Spoilt(BaseException):
    """The solution is gone or returned no plain value: this test has failed, whatever it catches."""


class TestFault(BaseException):
    """The test passes what cannot cross."""


class Tester:
    def __init__(self, send: Send, receive: Receive) -> None:
        self._send, self._receive = send, receive
        self._spoilt = self._fault = ""
        self._index = 0
        self._raised: dict[type[Exception], type[FromSolution]] = {}
        self._stand_ins: list[Any] = []

    def run(self, index: int, test: CodeType | str, names: dict[str, Any]) -> tuple[int, str]:
        """``test``: a text says what is wrong with it."""
        if isinstance(test, str):
            return frames.FAULT, test
        self._index, self._spoilt, self._fault = index, "", ""
        kind, text = self._attempt(test, names)
        if self._fault:
            return frames.FAULT, self._fault
        return (frames.FAILED, self._spoilt) if self._spoilt else (kind, text)

    def _attempt(self, code: CodeType, names: dict[str, Any]) -> tuple[int, str]:
        try:
            exec(code, names)
        except ImportError as error:
            return frames.FAULT, describe(error, FILE_NAME, "the test")
        except BaseException as error:  # noqa: BLE001 - a failed assertion, a wrong type, sys.exit()
            return frames.FAILED, describe(error, FILE_NAME, "the test")
        return frames.PASSED, ""

    def stand_in(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                body = values.encode([name, list(args), kwargs])
            except values.NotPlain as error:
                text = f"the test passes {error} to {name}()"
                # What should be a constant of the solution may be a function: no fault, which would spare it the 0.
                if self._spoilt or any(error.value is function for function in self._stand_ins):
                    raise self._spoil(text) from None
                self._fault = self._fault or text
                raise TestFault(self._fault) from None
            except values.TooLarge as error:
                raise self._spoil(f"the test passes {error} to {name}()") from None
            self._send(frames.CALL, self._index, body)
            return self._read(name, *self._receive())

        call.__name__ = call.__qualname__ = name
        self._stand_ins.append(call)
        return call

    def _read(self, name: str, kind: int, body: bytes) -> Any:
        if kind == frames.RESULT:
            try:
                return values.decode(body)
            except (ValueError, RecursionError, MemoryError):
                raise self._spoil(f"{name}() returned bytes that are no value") from None
        text = body.decode("utf-8", "replace")
        if kind == frames.RAISED:
            builtin, _, rest = text.partition("\0")
            raise self._exception(RAISABLE.get(builtin, RuntimeError))(rest.partition("\0")[2])
        raise self._spoil(text)

    def _exception(self, kind: type[Exception]) -> type[FromSolution]:
        if kind not in self._raised:
            self._raised[kind] = type(kind.__name__, (FromSolution, kind), {})
        return self._raised[kind]

    def _spoil(self, text: str) -> Spoilt:
        self._spoilt = self._spoilt or text or "the solution failed"
        return Spoilt(self._spoilt)


def run(payload: bytes, send: Send, receive: Receive) -> NoReturn:
    """Payload: the encoded list of tests. The names of the solution come once it has loaded."""
    tests = [compiled(test) for test in values.decode(payload)]  # before anything of the solution can be in the way
    send(frames.LOADED)
    functions, constants = introduced(receive()[1])
    tester = Tester(send, receive)
    names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    names |= {name: value for name, value in constants.items() if allowed(name)}
    tested = subject(tests)
    names |= {name: tester.stand_in(name) for name in functions if allowed(name, tested)}
    send(frames.LOADED, 0, b"values" if constants else b"")
    for index, test in enumerate(tests):
        kind, text = tester.run(index, test, names)
        send(kind, index, as_bytes(text))
    os._exit(0)


def compiled(test: str) -> CodeType | str:
    """The code, or what is wrong with it."""
    try:
        return compile(test, FILE_NAME, "exec")
    except BaseException as error:  # noqa: BLE001 - SyntaxError, ValueError, MemoryError, RecursionError
        return describe(error, FILE_NAME, "the test")


def subject(tests: Iterable[CodeType | str]) -> str:
    """The builtin that these tests are about, if any: the only name that occurs in them.

    ``assert sum(10, 15) == 6`` can only mean a ``sum`` of the solution. Wherever another name occurs, builtins stay
    what they are, since a solution could define ``abs`` and so pass ``abs(add(2, 3) - 5) < 1e-9``; and no name is
    reached through a text. The solution has no say in it.
    """
    codes = [test for test in tests if isinstance(test, CodeType)]
    found = {name for code in codes for name in code.co_names}
    inner = any(isinstance(constant, CodeType) for code in codes for constant in code.co_consts)
    return found.pop() if len(found) == 1 and not inner and found.isdisjoint(BY_TEXT) else ""


def introduced(body: bytes) -> tuple[list[Any], dict[Any, Any]]:
    """The names of functions and the constants of a solution; none if it does not say them properly."""
    try:
        functions, constants = values.decode(body)
    except (RecursionError, TypeError, ValueError):
        return [], {}
    return (functions, constants) if type(functions) is list and type(constants) is dict else ([], {})


def allowed(name: Any, subject: str = "") -> bool:
    """A solution that defines `abs` or `AssertionError` does not define it for the tests, but for tests of it."""
    plain = type(name) is str and name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__")
    return plain and (name == subject or not hasattr(builtins, name))
