"""``code``: the answer is Python code that passes the tests.

The code is the last fenced block of the answer, or all of an answer without fences. ``tests`` are Python snippets,
such as ``assert add(1, 2) == 3``: a list in the grader, or a template of a JSON list in the item. The score is 1 if
all pass, else 0; with ``partial`` it is the share that passes.

Code and tests run in two processes (:mod:`rft_ilab.grading.cage.judge`), so the code can neither read the tests nor
forge their verdict, and has no files, network or processes. ``seconds`` (wall clock, for loading and for each test)
and ``memory_mb`` bound it. Code that crashes or hangs is wrong; tests that fail by themselves are an error.

Not covered: code that prints its result or reads its input; results that are no plain values (objects of a class,
generators); changes to an argument in place; code longer than 256 kB; other languages; style, and whether the code
looks results up instead of working them out (give tests that the prompt does not show).
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.cage import judge
from rft_ilab.grading.checks.fence import fenced
from rft_ilab.grading.registry import ANY, FLAG, INTEGER, NUMBER, TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, Unanswered, shown
from rft_ilab.grading.template import Template
from rft_ilab.skills.reading import parse_json

MAX_CODE = 262_144
MAX_SECONDS = 60.0
MEMORY_MB = (64, 4096)


class CodeCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "tests": ANY}
    OPTIONAL: ClassVar[Keys] = {"partial": FLAG, "seconds": NUMBER, "memory_mb": INTEGER}

    def __init__(
        self, input: str, tests: Any, partial: bool = False, seconds: float = 5.0, memory_mb: int = 512
    ) -> None:
        if not 0 < seconds <= MAX_SECONDS:
            raise GraderError(f"seconds {seconds}", fix=f"above 0, at most {MAX_SECONDS:g}")
        if not MEMORY_MB[0] <= memory_mb <= MEMORY_MB[1]:
            raise GraderError(f"memory_mb {memory_mb}", fix=f"from {MEMORY_MB[0]} to {MEMORY_MB[1]}")
        self._template = Template(tests) if isinstance(tests, str) else None
        self._fixed = [] if isinstance(tests, str) else _checked(tests)
        self._input, self._partial, self._seconds, self._memory_mb = Template(input), partial, seconds, memory_mb

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        ready = [self._job(sample) for sample in samples]
        jobs = [job for job in ready if not isinstance(job, Mark)]
        results = iter(judge.run_many(jobs) if jobs else ())
        return [job if isinstance(job, Mark) else self._mark(job, next(results)) for job in ready]

    def _job(self, sample: Sample) -> judge.CodeJob | Mark:
        try:
            tests = self._tests(sample)
            code = fenced(self._input.render(sample))
        except Unanswered as error:
            return Mark(0.0, None, str(error))
        except GraderError as error:
            return Mark.failed(error.what)
        if not code.strip():
            return Mark(0.0, None, "no code")
        if len(code) > MAX_CODE:
            return Mark(0.0, None, f"longer than {MAX_CODE} characters")
        return judge.CodeJob(solution=code, tests=tests, seconds=self._seconds, memory_mb=self._memory_mb)

    def _tests(self, sample: Sample) -> list[str]:
        if self._template is None:
            return self._fixed
        try:
            return _checked(parse_json(self._template.render(sample)))
        except ValueError as error:
            raise GraderError(f"the tests are no JSON list: {error}") from error

    def _mark(self, job: judge.CodeJob, result: judge.CodeResult) -> Mark:
        if result.error is not None:
            return Mark.failed(result.error)
        if len(result.passed) != len(job.tests):
            return Mark.failed(f"{len(result.passed)} verdicts on {len(job.tests)} tests")
        passed, answer = sum(result.passed), shown(job.solution, 200)
        if passed == len(job.tests):
            return Mark(1.0, answer, "right")
        reason = f"{passed} of {len(job.tests)} tests pass" + (f"; {result.note}" if result.note else "")
        return Mark(passed / len(job.tests) if self._partial else 0.0, answer, reason)


def _checked(tests: Any) -> list[str]:
    """Raises GraderError."""
    if not isinstance(tests, list) or not all(isinstance(test, str) and test.strip() for test in tests):
        raise GraderError("tests must be a list of texts", fix='such as ["assert add(1, 2) == 3"]')
    if not 1 <= len(tests) <= judge.MAX_TESTS:
        raise GraderError(f"{len(tests)} tests", fix=f"from 1 to {judge.MAX_TESTS}")
    for test in tests:
        try:
            with warnings.catch_warnings():  # of odd escapes and the like
                warnings.simplefilter("ignore")
                ast.parse(test)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise GraderError(f"the test {shown(test)} is not Python: {str(error)[:80]}") from error
    return tests
