"""The split judge: a model's code in one caged child, the tests in another, plain values in between.

Isolation alone does not stop forging: where tests and solution share an interpreter, ``__eq__ -> True``, a subclass of
int, a patched builtin or a walk up the stack wins. Here the solution's process sees the arguments of calls and nothing
else. All traffic passes through our process, which forwards the bytes unread and so knows whom a time-out belongs to.

What does not cross: objects (an instance of a class, a generator, a Counter), functions as arguments, and what a call
does to its arguments in place. Tests must judge returned plain values, by a measure that they bring along: two
functions of a solution that lie alike pass ``decode(encode(x)) == x``, or ``Counter(f(x)) == Counter("ab")`` where the
test does not import Counter. A builtin that the solution redefines is its own only where the tests name nothing else
(:func:`.tester.subject`); elsewhere, as in ``assert len(sum(1, 2)) == 1``, ``sum`` is Python's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rft_ilab.errors import SandboxError
from rft_ilab.grading.cage import capabilities, frames, pool, values
from rft_ilab.grading.cage.child import Child, ChildLost, Forged
from rft_ilab.grading.cage.modules import named
from rft_ilab.grading.cage.server import END_SECONDS, ServerLost

MAX_TESTS = 1000
LOSSES = 2  # solutions lost (crash, time-out) before the other tests count as failed
TRIES = 3  # when a fork server dies


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeResult:
    """``passed``: one a test. ``error``: the tests or the sandbox are at fault. ``note``: why a test failed."""

    passed: tuple[bool, ...]
    error: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeJob:
    """``seconds``: wall clock for loading the solution, and for each test."""

    solution: str
    tests: Sequence[str]
    seconds: float = 5.0
    memory_mb: int = 512


def run_tests(solution: str, tests: Sequence[str], *, seconds: float = 5.0, memory_mb: int = 512) -> CodeResult:
    """Run a model's code against tests (Python snippets such as ``assert add(1, 2) == 3``). Does not raise."""
    return run_job(CodeJob(solution=solution, tests=tests, seconds=seconds, memory_mb=memory_mb))


def run_many(jobs: Sequence[CodeJob]) -> list[CodeResult]:
    """As :func:`run_tests` for many, as many at a time as there are processors; results in order."""
    if len(jobs) <= 1 or pool.workers() == 1:
        return [run_job(job) for job in jobs]
    with contextlib.suppress(SandboxError):  # which every job reports for itself
        for index in range(pool.workers()):
            pool.default().server(index)
    with ThreadPoolExecutor(pool.workers()) as threads:
        return list(threads.map(run_job, jobs))


def run_job(job: CodeJob) -> CodeResult:
    failed = (False,) * len(job.tests)
    if not job.tests or len(job.tests) > MAX_TESTS:
        return CodeResult(passed=failed, error=f"{len(job.tests)} tests; 1 to {MAX_TESTS} can be run")
    try:
        tests = values.encode([str(test) for test in job.tests])
    except values.TooLarge as error:
        return CodeResult(passed=failed, error=f"the tests are too long: {error}")
    for _ in range(TRIES):
        try:
            return _Session(job, tests).run()
        except ServerLost as error:
            problem = str(error)
        except SandboxError as error:
            return CodeResult(passed=failed, error=str(error))
    return CodeResult(passed=failed, error=f"the sandbox died {TRIES} times: {problem}")


class Solver:
    """The child with the solution. ``problem`` says why it cannot be called (any more)."""

    def __init__(self, solution: str | bytes, seconds: float, memory_mb: int, *, cpu_seconds: int) -> None:
        """Asks for the child; :meth:`load` waits for it. Raises SandboxError, ServerLost."""
        server = pool.default().server()
        capabilities.require(server.walls, trusted=False)
        source = solution if isinstance(solution, bytes) else solution.encode("utf-8", "surrogatepass")
        self._seconds = seconds
        self.problem = "" if len(source) <= frames.MAX_BODY - frames.MAX_VALUE else "the solution is too long"
        self.names = b""
        self._child = Child(
            frames.SOLVER,
            b"" if self.problem else source,
            memory_mb=memory_mb,
            cpu_seconds=cpu_seconds,
            modules=named(source.decode("utf-8", "replace")),
            server=server,
        )

    def close(self) -> None:
        self._child.close()

    def load(self) -> None:
        """Sets ``names`` or ``problem``. Raises SandboxError, ServerLost."""
        if self.problem:
            return
        self._child.ready()
        try:
            kind, _, body = self._child.frame(time.monotonic() + self._seconds)
        except ChildLost as error:
            self.problem = f"the solution does not load: {error}"
            return
        if kind == frames.NAMES and len(body) <= frames.MAX_VALUE:
            self.names = body
        else:
            reason = frames.text(body) if kind == frames.UNLOADABLE else "forged: it is no list of names"
            self.problem = f"the solution does not load: {reason}"

    def call(self, body: bytes, deadline: float) -> tuple[int, bytes]:
        """The answer to an encoded call, to be passed on as it is; GONE if there is none. Raises ServerLost."""
        if not self.problem:
            try:
                kind, answer = self._child.ask(frames.CALL, body, deadline)
                if kind in (frames.RESULT, frames.RAISED, frames.UNPLAIN, frames.GONE):
                    return kind, answer
                self.problem = "the solution: forged: no answer to the call"
            except ChildLost as error:
                self.problem = f"the solution: {error}"
            self._child.close()
        return frames.GONE, self.problem.encode("utf-8", "replace")


class _Session:
    """One solution against its tests."""

    def __init__(self, job: CodeJob, tests: bytes) -> None:
        self._job, self._tests = job, tests
        self._passed = [False] * len(job.tests)
        self._note = ""
        self._losses = 0
        self._crossed = False  # whether the solution may have had a hand in what the tests do

    def run(self) -> CodeResult:
        job = self._job
        self._solver = _solver(job)
        try:
            tester = Child(
                frames.TESTER,
                self._tests,
                memory_mb=job.memory_mb,
                cpu_seconds=int(job.seconds * (len(job.tests) + 1)) + 5,
                modules=named("\n".join(job.tests)),
                server=pool.default().server(),
            )
            with tester:
                self._solver.load()
                if self._solver.problem:
                    return self._result(note=self._solver.problem)
                tester.ready()
                return self._judge(tester)
        finally:
            self._solver.close()

    def _result(self, *, error: str | None = None, note: str = "") -> CodeResult:
        return CodeResult(passed=tuple(self._passed), error=error, note=_line(self._note or note))

    def _judge(self, tester: Child) -> CodeResult:
        tests = len(self._job.tests)
        try:
            self._introduce(tester)
            for index in range(tests):
                self._revive()
                fault = self._test(tester, index)
                if fault:
                    return CodeResult(passed=(False,) * tests, error=_line(f"test {index + 1}: {fault}"))
            tester.ended(time.monotonic() + END_SECONDS)
        except _Stuck as error:
            return self._result(error=error.fault, note=error.note)
        except ChildLost as error:  # it has said all, but something else too: nothing of it counts
            return CodeResult(passed=(False,) * tests, error=f"the tests: {error}")
        return self._result()

    def _introduce(self, tester: Child) -> None:
        """Tell the tester what the solution defines. Raises _Stuck: whatever fails then is the solution's doing."""
        deadline = time.monotonic() + self._job.seconds
        try:
            tester.frame(deadline)  # of tests that are compiled
        except ChildLost as error:
            raise _Stuck(f"the tests cannot be compiled: {error}", "") from None
        deadline = time.monotonic() + self._job.seconds
        try:
            tester.send(frames.NAMES, self._solver.names, deadline)
            kind, _, body = tester.frame(deadline)
        except ChildLost as error:
            raise _Stuck(None, f"the names that the solution defines cannot be read: {error}") from None
        if kind != frames.LOADED:
            raise Forged("forged: an unknown kind of frame")
        self._crossed = body != b""

    def _test(self, tester: Child, index: int) -> str:
        """Serve one test to its end; what is wrong with the test itself, if anything. Raises _Stuck, ChildLost."""
        deadline = time.monotonic() + self._job.seconds
        lost = ""
        while True:
            try:
                kind, at, body = tester.frame(deadline)
            except Forged:
                raise
            except ChildLost as error:
                raise self._stuck(index, str(error)) from None
            if at != index:
                raise Forged("forged: a result of another test")
            if kind == frames.CALL:
                answer, reply = self._solver.call(body, deadline)
                self._crossed = True
                if self._solver.problem and not lost:
                    lost = self._solver.problem
                    deadline = time.monotonic() + self._job.seconds  # for the test to end
                try:
                    tester.send(answer, reply, deadline + 1)
                except ChildLost as error:
                    raise self._stuck(index, str(error)) from None
            elif kind == frames.FAULT and not lost:
                return frames.text(body)
            elif kind in (frames.PASSED, frames.FAILED, frames.FAULT):
                # Whatever the test has caught: without the solution it cannot have passed.
                self._passed[index] = kind == frames.PASSED and not lost
                if not self._passed[index]:
                    self._note = self._note or f"test {index + 1}: {lost or frames.text(body)}"
                return ""
            else:
                raise Forged("forged: an unknown kind of frame")

    def _stuck(self, index: int, how: str) -> _Stuck:
        """The tester hangs or has died. What the solution may have caused is not an error, which would spare it a 0."""
        if self._crossed:
            return _Stuck(None, f"test {index + 1}: {how} after a value of the solution")
        return _Stuck(f"test {index + 1}: {how} without a call of the solution", "")

    def _revive(self) -> None:
        """A new child after a crash or time-out, so that it costs its own test only; not for ever."""
        if self._solver.problem and self._losses < LOSSES:
            self._losses += 1
            self._solver.close()
            self._solver = _solver(self._job)
            self._solver.load()


class _Stuck(Exception):
    def __init__(self, fault: str | None, note: str) -> None:
        self.fault, self.note = fault, note


def _solver(job: CodeJob) -> Solver:
    seconds = int(job.seconds * (len(job.tests) + 1)) + 5
    return Solver(job.solution, job.seconds, job.memory_mb, cpu_seconds=seconds)


def _line(text: str) -> str:
    return (text.splitlines() or [""])[0]
