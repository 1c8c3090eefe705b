"""Run a grader written in Python outside our process and without our environment.

One child a batch (:mod:`.worker`): isolated interpreter, empty environment, an empty temporary
directory to work in, standard streams to nowhere, its own process group. Before the grader's source is
read the child limits itself: address space, CPU time, open files, no bytes written to files, no
further processes (not for root, whom the kernel exempts). The wall clock is ours: a sample that takes
too long has its process group killed. A crash or time-out costs its sample; the rest go on in a new
child. Scores come back as fixed binary frames with a nonce; nothing that the child says is unpickled
or parsed as JSON, and only a finite number in [0, 1] is accepted, never a clamped one.

What is not covered (a later sandbox is to add seccomp, Landlock and a split judge): the grader can
read what the user can read (files, ``/proc``, so also the environment of our process), delete files,
open sockets, signal the user's other processes, and keep state between the samples of a batch. It
shares its interpreter with the code that reports its score, so it can forge its own score; it cannot
touch another grader's. macOS does not enforce the limit on memory. Run graders of strangers only
where that is acceptable.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rft_ilab.errors import SandboxError
from rft_ilab.grading import worker
from rft_ilab.grading.sample import Mark, Sample

WORKER = Path(worker.__file__)
START_SECONDS = 60.0  # a cold interpreter on a loaded machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``seconds``: wall clock a sample (and for loading); ``deaths``: children lost in a row before giving up."""

    seconds: float = 5.0
    memory_mb: int = 512
    batch: int = 64
    batch_bytes: int = 8 << 20
    deaths: int = 8


def run_python(source: str, samples: Sequence[Sample], limits: Limits | None = None) -> list[Mark]:
    """Marks of all samples, in order. Raises SandboxError if no child can be started at all."""
    limits = limits or Limits()
    marks: list[Mark] = []
    for batch in _batches([json.dumps([s.as_dict(), dict(s.item)]) for s in samples], limits):
        done: list[Mark] = []
        deaths = 0
        while len(done) < len(batch):
            new, died = _run_child(source, batch[len(done) :], limits)
            done += new
            deaths = deaths + 1 if died and len(new) == 1 else int(died)
            if deaths >= limits.deaths and len(done) < len(batch):
                error = f"not run: the grader died on {deaths} samples in a row, last: {done[-1].error}"
                done += [Mark.failed(error)] * (len(batch) - len(done))
        marks += done
    return marks


def load_error(source: str, limits: Limits | None = None) -> str | None:
    """What keeps a grader's source from loading (syntax, no ``grade``), or None."""
    with _Child(source, [], limits or Limits()) as child:
        return child.load()


def _batches(rows: Sequence[str], limits: Limits) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == limits.batch or size + len(row) > limits.batch_bytes):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row)
    if batch:
        yield batch


def _run_child(source: str, rows: Sequence[str], limits: Limits) -> tuple[list[Mark], bool]:
    """Marks of the first rows, at least one: up to and with the sample that killed the child, if one did."""
    with _Child(source, rows, limits) as child:
        if problem := child.load():
            return [Mark.failed(problem)] * len(rows), True
        marks: list[Mark] = []
        for index in range(len(rows)):
            try:
                marks.append(child.mark(index))
            except ChildLost as error:
                return [*marks, Mark.failed(str(error))], True
        return marks, False


class ChildLost(Exception):
    """The child died, hung or said something that is no frame."""


class _Child:
    """One child process. As a context manager it never outlives the block."""

    def __init__(self, source: str, rows: Sequence[str], limits: Limits) -> None:
        self._limits = limits
        self._nonce = secrets.token_bytes(worker.NONCE_BYTES)
        self._buffer = bytearray()
        cpu = math.ceil(limits.seconds * (len(rows) + 1)) + 1
        head = json.dumps({"source": source, "memory_mb": limits.memory_mb, "cpu_seconds": cpu})
        with contextlib.ExitStack() as stack:
            # A file, not a pipe: the child may die before it has read everything.
            stdin = stack.enter_context(tempfile.TemporaryFile())
            stdin.write(self._nonce + f'{head[:-1]}, "samples": [{", ".join(rows)}]}}'.encode())
            stdin.seek(0)
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True))
            self._process = self._start(stdin, directory)
            assert self._process.stdout is not None
            self._pipe = self._process.stdout.fileno()
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._selector.register(self._pipe, selectors.EVENT_READ)
            stack.callback(self._process.stdout.close)
            stack.callback(self._kill)
            self._cleanup = stack.pop_all()

    def _start(self, stdin: IO[bytes], directory: str) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(WORKER)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=directory,
                env={},
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"cannot start {sys.executable}: {error.strerror}") from error

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.close()

    def load(self) -> str | None:
        """Wait until the source is loaded; returns what is wrong with it. Raises SandboxError."""
        try:
            kind, _, text = self._frame(0, START_SECONDS)
        except ChildLost as error:
            raise SandboxError(f"the sandbox does not start: {error}", where=WORKER) from error
        if kind != worker.HELLO:
            raise SandboxError("the sandbox does not start", where=WORKER)
        try:
            kind, _, text = self._frame(0, self._limits.seconds)
        except ChildLost as error:
            return f"the source does not load: {error}"
        if kind == worker.LOADED:
            return None
        return f"the source does not load: {text or 'no reason given'}"

    def mark(self, index: int) -> Mark:
        """The mark of the next sample. Raises ChildLost."""
        kind, score, text = self._frame(index, self._limits.seconds)
        if kind == worker.SCORE and math.isfinite(score) and 0.0 <= score <= 1.0:
            return Mark(score, None, f"scored {score:g}")
        if kind == worker.ERROR:
            return Mark.failed(text)
        raise ChildLost("the grader wrote into the channel of its results")

    def _frame(self, index: int, seconds: float) -> tuple[int, float, str]:
        header = self._read(worker.FRAME.size, deadline := time.monotonic() + seconds)
        nonce, kind, got, score, length = worker.FRAME.unpack(header)
        if nonce != self._nonce or got != index or length > worker.MAX_ERROR_BYTES:
            raise ChildLost("the grader wrote into the channel of its results")
        return kind, score, self._read(length, deadline).decode("utf-8", "replace")

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise ChildLost(f"time-out: no score within {self._limits.seconds:g} s")
            piece = os.read(self._pipe, 65536)
            if not piece:
                raise ChildLost(self._death())
            self._buffer += piece
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _death(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=1)
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"crash: the grader's process ended without a score ({how})"
        return "crash: the grader closed the channel of its results"

    def _kill(self) -> None:
        """The whole group, also after the child itself has ended: it may have left others behind."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
