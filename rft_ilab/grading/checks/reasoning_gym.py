"""``reasoning_gym``: the answer scored by the data set of reasoning-gym that its task comes from.

``dataset`` is a name such as ``basic_arithmetic``, ``entry`` a template of the item's field that holds the library's
whole entry (question, answer, metadata). The score is ``get_score_answer_fn(dataset)(answer, entry)`` of the library
(https://github.com/open-thought/reasoning-gym, arXiv 2505.24760), whose partial credit is kept: many data sets give
0.01 or more to a wrong answer, so pass at 1.0.

The scorer runs in a process of its own (:mod:`.bounded`) for at most 0.8 s of processor time. Some scorers evaluate
the answer as Python or with sympy's ``parse_expr``; both are replaced by readers of plain arithmetic. An answer
longer than 20,000 characters is wrong.

Not covered: making tasks (the entry must be in the row), options of a data set (the scorer has the default ones), and
what the library's scorers get wrong: in 0.1.25 ``complex_arithmetic`` gives ``nan`` 1.0 and ``game_of_life_halting``
gives any text 1.0.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.bounded import bounded
from rft_ilab.grading.registry import TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.template import Template

LIMIT = 20_000
HANDLER = "reasoning_gym_child.py"


class ReasoningGymCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "dataset": TEXT, "entry": TEXT}
    OPTIONAL: ClassVar[Keys] = {}

    def __init__(self, input: str, dataset: str, entry: str) -> None:
        if find_spec("reasoning_gym") is None:
            raise GraderError(
                "a reasoning_gym grader needs the package 'reasoning-gym'", fix="pip install reasoning-gym==0.1.25"
            )
        self._input, self._dataset, self._entry = Template(input), dataset, Template(entry)
        probe = bounded(HANDLER).ask(dataset=dataset, probe=True)
        if probe.error is not None:
            raise GraderError(f"dataset {dataset!r} cannot be scored: {probe.error}")

    def mark_one(self, sample: Sample) -> Mark:
        entry, answer = self._entry.render(sample), self._input.render(sample)
        if len(answer) > LIMIT:
            return Mark(0.0, None, f"the answer is longer than {LIMIT} characters")
        mark = bounded(HANDLER).ask(dataset=self._dataset, entry=entry, answer=answer)
        if mark.score is not None and not (math.isfinite(mark.score) and 0 <= mark.score <= 1):
            return Mark.failed(f"the library scored {mark.score!r}, outside 0 to 1")
        return mark
