"""The child that holds a model's code and answers calls with plain values. Standard library only.

It learns the arguments of each call and nothing else: neither the tests nor what they expect.
"""

from __future__ import annotations

import builtins
import os
from typing import Any, NoReturn

from rft_ilab.grading.cage import frames, values
from rft_ilab.grading.cage.channel import Receive, Send, as_bytes, describe, said

FILE_NAME = "<solution>"
_BUILTIN = {value: name for name, value in vars(builtins).items() if getattr(value, "__name__", "") == name}
MAX_NAMES, MAX_CONSTANTS = 1000, 256 << 10


def run(payload: bytes, send: Send, receive: Receive) -> NoReturn:
    """Payload: the source."""
    names: dict[str, Any] = {"__name__": "solution", "__builtins__": builtins}
    try:
        exec(compile(payload.decode("utf-8", "surrogatepass"), FILE_NAME, "exec"), names)
    except BaseException as error:  # noqa: BLE001 - sys.exit() included
        send(frames.UNLOADABLE, 0, as_bytes(describe(error, FILE_NAME, "the solution")))
        os._exit(0)
    send(frames.NAMES, 0, public(names))
    while True:
        _, body = receive()
        send(*answer(names, body))


def public(names: dict[str, Any]) -> bytes:
    """Encoded [names of functions, {name: plain value}]."""
    functions: list[str] = []
    constants: dict[str, Any] = {}
    room = MAX_CONSTANTS
    for name, value in list(names.items())[:MAX_NAMES]:
        if type(name) is not str or name.startswith("__"):
            continue
        if callable(value):
            functions.append(name)
            continue
        try:
            room -= len(values.encode(value, room))
            constants[name] = value
        except (TypeError, ValueError):
            continue
    return values.encode([functions, constants])


def answer(names: dict[str, Any], body: bytes) -> tuple[int, int, bytes]:
    name, args, kwargs = values.decode(body)
    try:
        function = names[name]
    except KeyError:
        return frames.GONE, 0, as_bytes(f"the solution defines no {name}")
    try:
        value = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - what it raises is its answer
        described = as_bytes(describe(error, FILE_NAME, "the solution")).replace(b"\0", b" ")
        return frames.RAISED, 0, b"\0".join((base_name(error).encode(), described, as_bytes(said(error))))
    try:
        return frames.RESULT, 0, values.encode(value)
    except (values.NotPlain, values.TooLarge) as error:
        return frames.UNPLAIN, 0, as_bytes(f"{name}() returned {error}")


def base_name(error: BaseException) -> str:
    """The nearest builtin ancestor of an exception."""
    for ancestor in type.mro(type(error)):
        if _BUILTIN.get(ancestor):
            return _BUILTIN[ancestor]
    return "Exception"
