"""Child of :mod:`rft_ilab.grading.sandbox`: runs one Python grader on a batch. Standard library only.

Started as ``python -I -S -B worker.py`` with nothing but: stdin = 16 bytes of nonce, then JSON
``{"source", "memory_mb", "cpu_seconds", "samples": [[sample, item], ...]}``; stdout = a pipe.
Writes binary frames, each as soon as it is known, so that a later crash costs only later samples:
HELLO (limits are set), LOADED or UNLOADABLE (the source ran), then SCORE or ERROR for every sample.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import traceback
from typing import Any

NONCE_BYTES = 16
# nonce, kind, index of the sample, score, bytes of error text that follow
FRAME = struct.Struct("!16sBIdH")
HELLO, LOADED, UNLOADABLE, SCORE, ERROR = range(1, 6)
MAX_ERROR_BYTES = 400
FILE_NAME = "<grader>"


def limit(name: str, value: int) -> None:
    """Lower a resource limit as far as ``value``; some systems lack some of them (macOS: NPROC, AS)."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def describe(error: BaseException) -> bytes:
    """``ValueError: text (line 3)``; the exception is the grader's own, so even ``str()`` of it may fail."""
    try:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:  # noqa: BLE001 - a hostile __str__ must not end the batch
        what = ""
    text = f"{type(error).__name__}: {what}" if what else type(error).__name__
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE_NAME]
    line = lines[-1] if lines else error.lineno if isinstance(error, SyntaxError) else None
    # Only the first line: the rest would break reports of one line an error.
    text = (text.splitlines() or [""])[0][:MAX_ERROR_BYTES] + (f" (line {line} of the grader)" if line else "")
    return text.encode("utf-8", "backslashreplace")[:MAX_ERROR_BYTES]


def verdict(value: Any) -> tuple[int, float, bytes]:
    """(kind, score, error text) of what ``grade`` returned: exactly a float, int or bool, from 0 to 1."""
    if type(value) not in (float, int, bool):
        return ERROR, 0.0, f"grade() returned {type(value).__name__}, not a number".encode("utf-8", "replace")
    if not 0 <= value <= 1:  # also catches NaN
        shown = str(value) if type(value) is float or abs(value) < 10**9 else "a large number"
        return ERROR, 0.0, f"grade() returned {shown}, outside 0 to 1".encode()
    return SCORE, float(value), b""


def main() -> None:
    results = os.dup(1)
    with os.fdopen(os.dup(0), "rb") as stdin:
        nonce, payload = stdin.read(NONCE_BYTES), stdin.read()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # what the grader prints goes nowhere
        os.dup2(null, fd)
    os.environ.clear()  # the locale machinery of Python sets LC_CTYPE

    def send(kind: int, index: int = 0, score: float = 0.0, text: bytes = b"") -> None:
        text = text[:MAX_ERROR_BYTES]
        os.write(results, FRAME.pack(nonce, kind, index, score, len(text)) + text)

    job = json.loads(payload)
    limit("RLIMIT_CORE", 0)
    limit("RLIMIT_FSIZE", 0)
    limit("RLIMIT_NOFILE", 32)
    limit("RLIMIT_NPROC", 0)
    limit("RLIMIT_CPU", job["cpu_seconds"])
    limit("RLIMIT_AS", job["memory_mb"] << 20)
    send(HELLO)
    names: dict[str, Any] = {"__name__": "grader", "__builtins__": __builtins__}
    try:
        exec(compile(job["source"], FILE_NAME, "exec"), names)
    except BaseException as error:  # noqa: BLE001 - sys.exit() included; the grader's failure is data
        send(UNLOADABLE, text=describe(error))
        os._exit(0)
    grade = names.get("grade")
    if not callable(grade):
        send(UNLOADABLE, text=b"the source defines no function grade(sample, item)")
    else:
        send(LOADED)
        for index, (sample, item) in enumerate(job["samples"]):
            try:
                kind, score, text = verdict(grade(sample, item))
            except BaseException as error:  # noqa: BLE001 - as above
                kind, score, text = ERROR, 0.0, describe(error)
            send(kind, index, score, text)
    os._exit(0)  # do not wait for threads, atexit or finalisers of the grader


if __name__ == "__main__":
    main()
