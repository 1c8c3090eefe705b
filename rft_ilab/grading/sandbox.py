"""Run a grader written in Python in the cage (:mod:`.cage`), a batch of samples a child.

A score is exactly a float, int or bool, finite, from 0 to 1; nothing is converted or clamped. A crash or time-out costs
its sample; the rest go on in a new child. About 1 % of the samples are graded again, alone: a grader that then says
something else keeps state between samples (or is random), and its batch is an error. Not so where a solution has run:
that may be random too, and would turn its own 0 and all of its batch into errors.

What no wall can change: a grader owns its own score, since it shares an interpreter with what reports it. It cannot
touch another child's. So a grader must not ``eval`` what a model wrote; it calls ``run_solution(source, function,
*args)``, which runs it in a child of its own and hands back a plain value. If the grader then hangs, dies or runs out
of memory, the value may be why: that is a 0. If it raises, which is the grader's to prevent, it is an error.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from rft_ilab.errors import SandboxError
from rft_ilab.grading.cage import capabilities, frames, pool
from rft_ilab.grading.cage.child import Child, ChildLost, Forged
from rft_ilab.grading.cage.judge import TRIES, Solver
from rft_ilab.grading.cage.modules import named
from rft_ilab.grading.cage.server import END_SECONDS, Server, ServerLost
from rft_ilab.grading.sample import Mark, Sample

REGRADE_FROM = 8  # samples in a batch below which none is graded again
_chance = random.Random()  # our own: choosing a sample must not disturb a seeded program


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``seconds``: wall clock a sample (and for loading). ``deaths``: children lost in a row before giving up.

    ``trusted``: False for a grader of a stranger, which is refused where the cage has no walls. ``regrade``: share of
    samples that are graded twice.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    batch: int = 64
    batch_bytes: int = 8 << 20
    deaths: int = 8
    trusted: bool = True
    regrade: float = 0.01


def run_python(source: str, samples: Sequence[Sample], limits: Limits | None = None) -> list[Mark]:
    """Marks of all samples, in order. Raises SandboxError if no child can be started, or none that is safe enough."""
    limits = limits or Limits()
    rows = [_row(sample) for sample in samples]
    batches = list(_batches([i for i, row in enumerate(rows) if isinstance(row, bytes)], rows, limits))
    grade = partial(_grade_batch, source, limits)
    inputs = [[row for i in batch if isinstance(row := rows[i], bytes)] for batch in batches]
    if len(batches) > 1 and pool.workers() > 1:
        with ThreadPoolExecutor(pool.workers()) as threads:
            graded = list(threads.map(grade, inputs, range(len(inputs))))
    else:
        graded = [grade(batch, 0) for batch in inputs]
    marks = {i: mark for batch, part in zip(batches, graded, strict=True) for i, mark in zip(batch, part, strict=True)}
    return [marks[i] if isinstance(row, bytes) else row for i, row in enumerate(rows)]


def load_error(source: str, limits: Limits | None = None) -> str | None:
    """What keeps a grader's source from loading (syntax, no ``grade``), or None. Raises SandboxError."""
    return _Batch(source, [], limits or Limits(), 0).run().problem


def _row(sample: Sample) -> bytes | Mark:
    try:
        return json.dumps([sample.as_dict(), dict(sample.item)]).encode()
    except (RecursionError, TypeError, ValueError) as error:
        return Mark.failed(f"the sample cannot be handed to a grader: {error}")


def _batches(indices: Sequence[int], rows: Sequence[bytes | Mark], limits: Limits) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for index in indices:
        length = len(row) if isinstance(row := rows[index], bytes) else 0
        if batch and (len(batch) == limits.batch or size + length > limits.batch_bytes):
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += length
    if batch:
        yield batch


def _grade_batch(source: str, limits: Limits, rows: list[bytes], worker: int) -> list[Mark]:
    done: list[Mark] = []
    asked: set[int] = set()
    deaths = 0
    while len(done) < len(rows):
        outcome = _Batch(source, rows[len(done) :], limits, worker).run()
        asked |= {len(done) + index for index in outcome.asked}
        if outcome.problem:
            done += [Mark.failed(outcome.problem)] * (len(rows) - len(done))
        else:
            deaths = deaths + 1 if outcome.died and len(outcome.marks) == 1 else int(outcome.died)
            done += outcome.marks
        if deaths >= limits.deaths and len(done) < len(rows):
            error = f"not run: the grader died on {deaths} samples in a row, last: {done[-1].error}"
            done += [Mark.failed(error)] * (len(rows) - len(done))
    return _checked(source, rows, done, asked, limits, worker)


def _checked(
    source: str, rows: list[bytes], marks: list[Mark], asked: set[int], limits: Limits, worker: int
) -> list[Mark]:
    """The marks, or errors if a sample that is graded alone gets another score than in its batch.

    Not tried on those that have ``asked`` for a solution: the difference may be the solution's doing.
    """
    scored = [i for i, mark in enumerate(marks) if mark.score is not None and i and i not in asked]
    expected = len(rows) * limits.regrade
    count = int(expected) + (_chance.random() < expected % 1)
    if len(rows) < REGRADE_FROM or not scored:
        return marks
    for index in _chance.sample(scored, min(count, len(scored))):
        (again,) = _grade_batch(source, replace(limits, regrade=0.0), [rows[index]], worker)
        if again.score != marks[index].score:
            alone = f"scores {again.score:g}" if again.score is not None else "fails"
            error = (
                f"the grader keeps state between samples or is random: "
                f"a sample scored {marks[index].score:g} in a batch and {alone} alone"
            )
            return [Mark.failed(error)] * len(marks)
    return marks


@dataclass(frozen=True, slots=True)
class _Outcome:
    """``marks`` of the first samples, at least one; ``died``: the grader did, at the last of them.

    ``asked``: which of them had a solution run.
    """

    marks: list[Mark]
    died: bool = False
    problem: str | None = None
    asked: frozenset[int] = frozenset()


class _Batch:
    """One child over the rows."""

    def __init__(self, source: str, rows: list[bytes], limits: Limits, worker: int) -> None:
        self._rows, self._limits, self._worker = rows, limits, worker
        text = source.encode("utf-8", "surrogatepass")
        self._modules = named(source)
        self._payload = len(text).to_bytes(4, "big") + text + b"\n".join(rows)
        self._solver: tuple[bytes, Solver] | None = None
        self._left = 0.0  # seconds that solutions may still take for this sample
        self._crossed = False  # whether the grader has seen a value of a solution of this sample
        self._index = 0
        self._asked: set[int] = set()  # samples that had a solution run

    def run(self) -> _Outcome:
        """Raises SandboxError."""
        for _ in range(TRIES):
            server = pool.default().server(self._worker % pool.workers())
            capabilities.require(server.walls, trusted=self._limits.trusted)
            try:
                return self._run(server)
            except ServerLost as error:
                problem = str(error)
            finally:
                self._drop_solver()
        raise SandboxError(f"the sandbox died {TRIES} times: {problem}")

    def _run(self, server: Server) -> _Outcome:
        limits = self._limits
        with Child(
            frames.GRADER,
            self._payload,
            memory_mb=limits.memory_mb,
            cpu_seconds=math.ceil(limits.seconds * (len(self._rows) + 1)) + 1,
            modules=self._modules,
            server=server,
        ) as child:
            child.ready()
            self._left = limits.seconds
            try:
                kind, _, body = self._frame(child)
            except ChildLost as error:
                return _Outcome([], problem=f"the source does not load: {self._said(error)}")
            if kind != frames.LOADED:
                reason = frames.text(body) if kind == frames.UNLOADABLE else "no reason given"
                return _Outcome([], problem=f"the source does not load: {reason}")
            return self._marks(child)

    def _marks(self, child: Child) -> _Outcome:
        marks: list[Mark] = []
        for index in range(len(self._rows)):
            self._index, self._left, self._crossed = index, self._limits.seconds, False
            try:
                marks.append(self._mark(child, index))
            except ChildLost as error:
                lost = self._lost(error)
                return _Outcome([*marks, lost], died=lost.score is None, asked=frozenset(self._asked))
            self._drop_solver()
        try:
            child.ended(time.monotonic() + END_SECONDS)
        except ChildLost as error:  # whose doing it was cannot be told
            return _Outcome([Mark.failed(self._said(error))] * len(marks))
        return _Outcome(marks, asked=frozenset(self._asked))

    def _mark(self, child: Child, index: int) -> Mark:
        kind, at, body = self._frame(child)
        if at != index or kind not in (frames.SCORE, frames.ZERO, frames.ERROR):
            raise Forged("forged: something was written into the channel of its results")
        if kind == frames.ERROR:
            line, _, traceback = body.partition(b"\0")
            if self._crossed and line.startswith(b"MemoryError"):
                return self._lost(ChildLost("out of memory"))
            kept = frames.text(traceback, frames.MAX_TRACEBACK, keep="\n")
            return Mark(None, None, kept, frames.text(line) or "unknown error")
        if kind == frames.ZERO:
            return Mark(0.0, None, f"the solution failed: {frames.text(body)}")
        (score,) = frames.SCORE_BODY.unpack(body) if len(body) == frames.SCORE_BODY.size else (math.nan,)
        if not (math.isfinite(score) and 0.0 <= score <= 1.0):
            raise Forged("forged: a score that grade() cannot have returned")
        return Mark(score, None, f"scored {score:g}")

    def _frame(self, child: Child) -> tuple[int, int, bytes]:
        """The next frame that is not a call of a solution; those are answered. Their time is not the grader's."""
        deadline = time.monotonic() + self._limits.seconds
        while True:
            kind, index, body = child.frame(deadline, side=frames.SOLVE)
            if kind != frames.SOLVE:
                return kind, index, body
            start = time.monotonic()
            answer, reply = self._solve(body)
            self._crossed |= answer == frames.RESULT
            spent = time.monotonic() - start
            self._left -= spent
            deadline += spent
            child.send(answer, reply, deadline, nonce=child.side_nonce)

    def _lost(self, error: ChildLost) -> Mark:
        """A value of the solution may be too large or slow to compare; an error would spare it the 0."""
        if self._crossed and not isinstance(error, Forged):
            return Mark(0.0, None, f"the solution failed: {self._said(error)} after a value of the solution")
        return Mark.failed(self._said(error))

    def _solve(self, body: bytes) -> tuple[int, bytes]:
        self._asked.add(self._index)
        size = int.from_bytes(body[:4], "big")
        source, call = body[4 : 4 + size], body[4 + size :]
        if self._left <= 0:
            return frames.GONE, b"time-out: solutions have used up the time of this sample"
        deadline = time.monotonic() + self._left
        if self._solver is None or self._solver[0] != source or self._solver[1].problem:
            self._drop_solver()
            seconds = self._limits.seconds
            solver = Solver(source, self._left, self._limits.memory_mb, cpu_seconds=math.ceil(seconds) + 5)
            self._solver = source, solver
            solver.load()
        return self._solver[1].call(call, deadline)

    def _drop_solver(self) -> None:
        if self._solver is not None:
            self._solver[1].close()
            self._solver = None

    def _said(self, error: ChildLost) -> str:
        text = str(error)
        return f"{text}: no score within {self._limits.seconds:g} s" if text == "time-out" else text
