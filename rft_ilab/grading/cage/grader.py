"""The child that runs a grader's ``grade(sample, item)`` on a batch. Standard library only."""

from __future__ import annotations

import builtins
import itertools
import json
import os
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from rft_ilab.grading.cage import frames, values
from rft_ilab.grading.cage.channel import Receive, Send, as_bytes, describe, full, open_channel

FILE_NAME = "<grader>"
_float, _int, _bool, _str, _type, _exit, _loads = float, int, bool, str, type, os._exit, json.loads  # before a patch


class SolutionError(Exception):
    """The solution raised, crashed, hung, or returned what is not plain. Uncaught, it is a score of 0."""


def run(payload: bytes, send: Send, receive: Receive) -> NoReturn:
    """Payload: a nonce for calls of solutions, the length of the source, the source, then one JSON text a line."""
    solve_nonce, payload = payload[: frames.NONCE_BYTES], payload[frames.NONCE_BYTES :]
    size = int.from_bytes(payload[:4], "big")
    source, rows = payload[4 : 4 + size].decode("utf-8", "surrogatepass"), payload[4 + size :].splitlines()
    runner = solution_runner(solve_nonce)
    names = {"__name__": "grader", "__builtins__": builtins, "run_solution": runner, "SolutionError": SolutionError}
    try:
        exec(compile(source, FILE_NAME, "exec"), names)
        grade = names.get("grade")
        problem = "" if callable(grade) else "the source defines no function grade(sample, item)"
    except BaseException as error:  # noqa: BLE001 - sys.exit() included; the grader's failure is data
        problem = describe(error, FILE_NAME, "the grader")
    if problem:
        send(frames.UNLOADABLE, 0, as_bytes(problem))
        _exit(0)
    send(frames.LOADED)
    steps = map(reporter(send), itertools.count(), map(attempts(grade), rows))
    del send, solve_nonce, payload  # nothing of the channel in a frame below the grader's
    deque(steps, maxlen=0)
    _exit(0)  # do not wait for threads, atexit or finalisers of the grader


def reporter(send: Send) -> Callable[[int, tuple[int, bytes]], None]:
    return lambda index, outcome: send(outcome[0], index, outcome[1])


def attempts(grade: Any) -> Callable[[bytes], tuple[int, bytes]]:
    def attempt(row: bytes) -> tuple[int, bytes]:
        try:
            sample, item = _loads(row)
            return verdict(grade(sample, item))
        except SolutionError as error:
            return frames.ZERO, as_bytes(describe(error, "", ""))
        except BaseException as error:  # noqa: BLE001 - as above
            return frames.ERROR, as_bytes(describe(error, FILE_NAME, "the grader")) + b"\0" + full(error).encode(
                "utf-8", "backslashreplace"
            )

    return attempt


def verdict(value: Any) -> tuple[int, bytes]:
    """What ``grade`` returned: exactly a float, int or bool, from 0 to 1; nothing is converted or clamped."""
    kind = _type(value)
    if kind is not _float and kind is not _int and kind is not _bool:
        return frames.ERROR, as_bytes(f"grade() returned {shown(value)}, not a number")
    if not 0 <= value <= 1:  # also catches NaN
        text = _str(value) if kind is _float or abs(value) < 10**9 else "a large number"
        return frames.ERROR, as_bytes(f"grade() returned {text}, outside 0 to 1")
    return frames.SCORE, frames.SCORE_BODY.pack(value)


def shown(value: Any) -> str:
    if value is None or _type(value) is str:
        return "None" if value is None else f"{value[:40]!a} (a str)"
    return f"a value of type {values.type_name(value)}"


def solution_runner(nonce: bytes) -> Callable[..., Any]:
    send, receive = open_channel(nonce)  # a nonce of its own: whoever finds it here cannot sign a score
    crossed = False

    def run_solution(source: str, function: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of a model's code in a process of its own. Plain values only; raises SolutionError."""
        nonlocal crossed
        if type(source) is not str or type(function) is not str:
            raise TypeError("run_solution(source, function, *args): source and function are texts")
        text = source.encode("utf-8", "surrogatepass")
        try:
            call = values.encode([function, list(args), kwargs])
        except values.TooLarge as error:
            if crossed:  # an argument may be what a solution has returned
                raise SolutionError(f"{function}() would get {error}") from None
            raise
        if len(text) > frames.MAX_BODY - frames.MAX_VALUE - 4:
            raise SolutionError("the solution is too long")
        send(frames.SOLVE, 0, len(text).to_bytes(4, "big") + text + call)
        kind, body = receive()
        if kind == frames.RESULT:
            crossed = True
            try:
                return values.decode(body)
            except (ValueError, RecursionError, MemoryError):
                raise SolutionError(f"{function}() returned bytes that are no value") from None
        raise SolutionError(": ".join(body[: 2 * frames.MAX_TEXT].decode("utf-8", "replace").split("\0")[:2]))

    return run_solution
