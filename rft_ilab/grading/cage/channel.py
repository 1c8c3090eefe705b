"""The child's end of its channel. Standard library only.

The nonce lives in closures alone: no frame of ours that lies below a grader's on the stack holds it, and the fork
server's objects are frozen out of ``gc.get_objects``. That stops accidents and idle curiosity, not a determined
program: it shares the interpreter with whatever reports its result.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

from rft_ilab.grading.cage.frames import HEADER, MAX_TEXT, MAX_TRACEBACK

CHANNEL_FD = 3

Send = Callable[..., None]  # (kind, index=0, body=b"")
Receive = Callable[[], "tuple[int, bytes]"]  # (kind, body)


def exact(size: int, read: Callable[[int, int], bytes] = os.read, fd: int = CHANNEL_FD) -> bytes:
    """Exactly ``size`` bytes of the channel; our process hanging up ends this one."""
    pieces = []
    while size:
        piece = read(fd, min(size, 1 << 20))
        if not piece:
            os._exit(0)
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def open_channel(nonce: bytes) -> tuple[Send, Receive]:
    """(send, receive). The answer to a call echoes the nonce that came with it."""
    write, pack, unpack, header_bytes = os.write, HEADER.pack, HEADER.unpack, HEADER.size
    current = nonce

    def send(kind: int, index: int = 0, body: bytes = b"") -> None:
        data = pack(current, kind, index, len(body)) + body
        while data:
            data = data[write(CHANNEL_FD, data) :]

    def receive() -> tuple[int, bytes]:
        nonlocal current
        current, kind, _, length = unpack(exact(header_bytes))
        return kind, exact(length)

    return send, receive


def said(error: BaseException) -> str:
    """``str()`` of an exception; it is foreign, so even that may fail."""
    try:
        return "".join([error.msg if isinstance(error, SyntaxError) else str(error)])  # no subclass of str
    except BaseException:  # noqa: BLE001 - a hostile __str__ must not end the batch
        return ""


def describe(error: BaseException, file_name: str, called: str) -> str:
    """``ValueError: text (line 3 of the grader)``, one line."""
    name = type(error).__name__
    first = (said(error).splitlines() or [""])[0][:MAX_TEXT]
    try:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file_name]
        line = lines[-1] if lines else error.lineno if isinstance(error, SyntaxError) else None
    except BaseException:  # noqa: BLE001 - as in said()
        line = None
    return (f"{name}: {first}" if first else name) + (f" (line {line} of {called})" if line else "")


def full(error: BaseException) -> str:
    """The traceback without our own frame, shortened in the middle."""
    try:
        foreign = error.__traceback__.tb_next if error.__traceback__ else None
        text = "".join(traceback.format_exception(type(error), error, foreign, limit=20))
    except BaseException:  # noqa: BLE001 - as above
        return ""
    half = MAX_TRACEBACK // 2
    return text if len(text) <= MAX_TRACEBACK else f"{text[:half]}\n[...]\n{text[-half:]}"


def as_bytes(text: str, limit: int = MAX_TEXT) -> bytes:
    return text.encode("utf-8", "backslashreplace")[:limit]
