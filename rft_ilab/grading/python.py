"""``python`` of OpenAI: ``source`` with ``grade(sample, item) -> float``, run in :mod:`.sandbox`.

The source may call ``run_solution(source, function, *args)`` on code that the model wrote: it runs in a process of its
own, a plain value comes back, and whatever goes wrong there raises ``SolutionError``, which uncaught is a score of 0.
Not covered: a grader that runs the model's text itself (``eval``, ``exec``, ``pickle``) lets the model set its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.sandbox import Limits, load_error, run_python

MAX_SOURCE_BYTES = 256 * 1024


class PythonCheck:
    """Raises GraderError if the source does not load; ``image_tag`` is OpenAI's and has no meaning here.

    ``trusted=False`` (here or in ``limits``) is for a grader of a stranger: SandboxError where there are no walls.
    """

    REQUIRED: ClassVar[Keys] = {"source": TEXT}
    OPTIONAL: ClassVar[Keys] = {"image_tag": TEXT}

    def __init__(self, source: str, image_tag: str = "", *, limits: Limits | None = None, trusted: bool = True) -> None:
        if len(source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES:
            raise GraderError(f"the source is longer than {MAX_SOURCE_BYTES >> 10} kB")
        self._source = source
        limits = limits or Limits()
        self._limits = replace(limits, trusted=trusted and limits.trusted)
        if problem := load_error(source, self._limits):
            raise GraderError(problem, fix="write def grade(sample, item): ...")

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        return run_python(self._source, samples, self._limits)
