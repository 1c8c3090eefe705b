"""Scoring that cannot be bounded from inside (sympy, a library's own scorer), in a process that can be killed.

A :class:`Bounded` keeps one child (:mod:`.bounded_child`): it loads the library once and then forks for each sample,
so a sample that hangs or dies costs neither the others nor another start. A sample gets ``CPU_SECONDS`` of processor
time, not of wall clock, so that a loaded machine does not turn a right answer into a wrong one. The child has an empty
environment and limits on memory, open files and bytes written. It runs library code on hostile text; it is no sandbox
for hostile code: the handlers must not evaluate an answer.

What goes wrong before the reference has been read is an error; after that it is the answer's fault and scores 0,
unless the job has a ``control``, an answer that is cheap, and that fails too.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from rft_ilab.errors import SandboxError
from rft_ilab.grading.checks import bounded_child
from rft_ilab.grading.sample import Mark, ascii_safe

START_SECONDS = 120.0  # sympy on a cold disk of a loaded machine
SAMPLE_SECONDS = 3 * bounded_child.WALL_SECONDS
MAX_LINE = 1 << 20
HERE = Path(__file__).parent


class Bounded:
    """One child process for one handler (a file beside this one); started when first asked, restarted if it dies."""

    def __init__(self, handler: str) -> None:
        self._command = [sys.executable, "-I", "-B", bounded_child.__file__, str(HERE / handler)]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def ask(self, **job: Any) -> Mark:
        """The mark of one job. Raises SandboxError if the child cannot be started at all."""
        request = json.dumps(job).encode() + b"\n"
        with self._lock:
            if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
                self._start()
            try:
                told = self._exchange(request, time.monotonic() + SAMPLE_SECONDS)
            except OSError as error:
                self.close()
                return Mark.failed(f"the scoring process ended: {error}")
        return Mark(told["score"], told["answer"], told["reason"], told["error"])

    def _start(self) -> None:
        self.close()
        self._directory = tempfile.TemporaryDirectory(prefix="scorer-", ignore_cleanup_errors=True)
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self._directory.name,
                env={"MPLCONFIGDIR": self._directory.name, "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
                start_new_session=True,
            )
            self._owner = os.getpid()
            ready = self._exchange(b"", time.monotonic() + START_SECONDS)
        except OSError as error:
            self.close()
            raise SandboxError(f"cannot start a scoring process: {error}") from error
        if ready["error"] is not None:
            self.close()
            raise SandboxError(f"cannot start a scoring process: {ready['error']}")

    def _exchange(self, request: bytes, deadline: float) -> dict[str, Any]:
        """Send one line, read one line. Raises OSError (TimeoutError included) when the child does not answer."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(request)
        self._process.stdin.flush()
        line = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError("no answer in time")
                piece = os.read(self._process.stdout.fileno(), 65536)
                if not piece or len(line) > MAX_LINE:
                    raise OSError("it closed its pipe")
                line += piece
        told: dict[str, Any] = json.loads(line)
        return {key: ascii_safe(value) if isinstance(value, str) else value for key, value in told.items()}

    def close(self) -> None:
        """End the child and what it may have left behind (not one that belongs to the process we were forked from)."""
        process, directory = self._process, self._directory
        self._process = self._directory = None
        if process is None or self._owner != os.getpid():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if directory is not None:
            directory.cleanup()


@cache
def bounded(handler: str) -> Bounded:
    """The one child of a handler in this process; it ends with the process."""
    child = Bounded(handler)
    atexit.register(child.close)
    return child
