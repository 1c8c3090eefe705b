"""``python`` of OpenAI: ``source`` with ``grade(sample, item) -> float``, run in :mod:`.sandbox`."""

from __future__ import annotations

from collections.abc import Sequence

from rft_ilab.errors import GraderError
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.sandbox import Limits, load_error, run_python

MAX_SOURCE_BYTES = 256 * 1024


class PythonCheck:
    """Raises GraderError if the source does not load; ``image_tag`` is OpenAI's and has no meaning here."""

    def __init__(self, source: str, image_tag: str = "", limits: Limits | None = None) -> None:
        if len(source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES:
            raise GraderError(f"the source is longer than {MAX_SOURCE_BYTES >> 10} kB")
        self._source, self._limits = source, limits
        if problem := load_error(source, limits):
            raise GraderError(problem, fix="write def grade(sample, item): ...")

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        return run_python(self._source, samples, self._limits)
