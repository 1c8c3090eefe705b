"""Child of :mod:`.bounded`: ``python -I -B bounded_child.py HANDLER.py``. Imports nothing of the project.

A handler is a file with ``prepare()`` (load the library), ``warm(job)`` (what may be kept for later jobs),
``reference(job)`` (what the answer is compared with) and ``score(expected, job)``, which returns (score, answer,
reason). One JSON line in, one JSON line out: score, answer, reason, error.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

CPU_SECONDS = 0.8
WALL_SECONDS = 15.0  # only for what sleeps; a loaded machine may need a while for 0.8 s of processor time
MEMORY_BYTES = 2 << 30
MAX_TEXT = 400
READ = b"R"  # the reference has been read


def limit(name: str, value: int) -> None:
    with contextlib.suppress(AttributeError, ValueError, OSError):  # some systems lack some of them
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def told(score: float | None = None, answer: str | None = None, reason: str = "", error: str | None = None) -> bytes:
    line = {"score": score, "answer": answer and answer[:MAX_TEXT], "reason": reason[:MAX_TEXT], "error": error}
    return json.dumps(line).encode() + b"\n"


def describe(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0][:MAX_TEXT]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def run(handler: Any, job: dict[str, Any], results: int) -> None:
    """In the fork: says READ once the reference is read, then the line for the parent."""
    # The default action of SIGPROF ends the process, also inside one long operation on a huge integer.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    limit("RLIMIT_NPROC", 0)
    try:
        expected = handler.reference(job)
    except BaseException as error:  # noqa: BLE001 - whatever the library raises is told, not lost
        os.write(results, told(error=f"the reference cannot be read: {describe(error)}"))
        return
    os.write(results, READ)
    try:
        score, answer, reason = handler.score(expected, job)
        line = told(score, answer, reason)
    except BaseException as error:  # noqa: BLE001 - as above
        line = told(0.0, None, f"the answer cannot be scored: {describe(error)}")
    os.write(results, line)


def serve(handler: Any, job: dict[str, Any], private: tuple[int, int]) -> bytes:
    """The line that a job says, or what its end means. A job's ``control`` is an answer that is cheap to score."""
    data = forked(handler, job, private)
    line = data.removeprefix(READ)
    if line.endswith(b"\n"):
        return line
    what = f"takes more than {CPU_SECONDS:g} s or too much memory"
    if data.startswith(READ) and "control" in job:
        data = forked(handler, {**job, "answer": job["control"]}, private)
        if not data.endswith(b"\n"):
            return told(error=f"the reference {what} to compare with")
    if data.startswith(READ):
        return told(0.0, None, f"the answer {what} to check")
    return told(error=f"the reference {what} to read")


def forked(handler: Any, job: dict[str, Any], private: tuple[int, int]) -> bytes:
    """What one job says in a fork of its own: READ, its line, or less if it was ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for fd in (read, *private):
                os.close(fd)
            run(handler, job, write)
        finally:
            os._exit(0)
    os.close(write)
    data, deadline = bytearray(), time.monotonic() + WALL_SECONDS
    while select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(read, 65536)
        if not piece:
            break
        data += piece
    os.close(read)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return bytes(data)


def main() -> None:
    private = requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # what a library prints goes nowhere
        os.dup2(null, fd)
    try:
        spec = importlib.util.spec_from_file_location("handler", sys.argv[1])
        assert spec is not None and spec.loader is not None
        handler = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(handler)
        handler.prepare()
    except Exception as error:  # noqa: BLE001 - a missing package is the parent's to report
        os.write(replies, told(error=describe(error)))
        return
    for name, value in (("CORE", 0), ("FSIZE", 0), ("NOFILE", 64), ("AS", MEMORY_BYTES)):
        limit(f"RLIMIT_{name}", value)
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, every page in every fork
    os.write(replies, told())
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            job = json.loads(line)
            try:
                handler.warm(job)
                reply = serve(handler, job, private)
            except Exception as error:  # noqa: BLE001 - one job must not end the others
                reply = told(error=describe(error))
            os.write(replies, reply)


if __name__ == "__main__":
    main()
