"""``code``: what it hands to the split judge and makes of the verdict; and once through the real one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import GraderError
from rft_ilab.grading.cage import judge
from rft_ilab.grading.checks.fence import fenced
from rft_ilab.grading.engine import build_grader
from rft_ilab.types import Grade
from tests.unit.taxonomies import make_rollout, make_skill, make_task

TESTS = ["assert f(1) == 1", "assert f(2) == 4", "assert f(3) == 9"]
GRADER = {"type": "code", "name": "g", "input": "{{sample.output_text}}", "tests": "{{item.tests}}"}
SQUARE = "def f(x): return x * x"


def grade(*completions: str, tests: Any = TESTS, **options: Any) -> list[Grade]:
    pairs = [(make_task({"tests": tests}), make_rollout(completion)) for completion in completions]
    return build_grader(make_skill({**GRADER, **options})).grade(pairs)


class StandIn:
    """Passes as many tests as the solution's number says; an odd word is an error."""

    def __init__(self) -> None:
        self.jobs: list[judge.CodeJob] = []

    def run_many(self, jobs: Sequence[judge.CodeJob]) -> list[judge.CodeResult]:
        self.jobs += jobs
        return [self._one(job) for job in jobs]

    def _one(self, job: judge.CodeJob) -> judge.CodeResult:
        if not job.solution.strip().isdigit():
            return judge.CodeResult(passed=(False,) * len(job.tests), error="the sandbox is broken")
        passed = tuple(index < int(job.solution) for index in range(len(job.tests)))
        return judge.CodeResult(passed=passed, note="" if all(passed) else "test 2: AssertionError")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(judge, "run_many", made.run_many)
    return made


def test_all_or_nothing_and_the_share(stand_in: StandIn) -> None:
    assert [result.score for result in grade("3", "1", "0")] == [1, 0, 0]
    assert [result.score for result in grade("3", "1", "0", partial=True)] == [1, pytest.approx(1 / 3), 0]
    assert grade("1")[0].reason == "1 of 3 tests pass; test 2: AssertionError"


def test_an_error_of_the_judge_is_no_zero_and_stays_with_its_sample(stand_in: StandIn) -> None:
    results = grade("3", "broken", "", "3")
    assert [result.score for result in results] == [1, None, 0, 1]
    assert results[1].error == "the sandbox is broken"
    assert [job.solution for job in stand_in.jobs] == ["3", "broken", "3"]  # one batch, without the empty answer


def test_limits_and_code_arrive(stand_in: StandIn) -> None:
    grade("```py\n3\n```", seconds=2, memory_mb=100)
    (job,) = stand_in.jobs
    assert (job.solution, list(job.tests), job.seconds, job.memory_mb) == ("3\n", TESTS, 2, 100)


@pytest.mark.parametrize(
    ("tests", "what"),
    [
        ([], "0 tests"), ("x", "no JSON list"), ([1], "list of texts"), ([" "], "list of texts"),
        ({"a": 1}, "list of texts"),
        (["assert f(1) =="], "not Python"), (["pass"] * 1001, "1001 tests"),
    ],
)  # fmt: skip
def test_bad_tests_are_errors(stand_in: StandIn, tests: Any, what: str) -> None:
    (result,) = grade("3", tests=tests)
    assert what in (result.error or "") and not stand_in.jobs
    with pytest.raises(GraderError):
        build_grader(make_skill({**GRADER, "tests": tests if not isinstance(tests, str) else [tests, 1]}))


@pytest.mark.parametrize("bad", [{"seconds": 0}, {"seconds": 61}, {"memory_mb": 1}, {"memory_mb": 10**6}, {"tests": 3}])
def test_bad_options_do_not_build(bad: dict[str, Any]) -> None:
    with pytest.raises(GraderError):
        build_grader(make_skill({**GRADER, **bad}))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("plain", "plain"), ("", ""), ("```\na\n```", "a\n"), ("x\n```py\na\n```\ny", "a\n"),
        ("```\na\n```\n```\nb\n```", "b\n"),
        ("```\na", "a"), ("```", ""), ("~~~\na\n```\n~~~", "a\n```\n"), ("````\n```\n````", "```\n"), ("`a`", "`a`"),
        ("   ```\na\n   ```", "a\n"), ("    ```\na", "    ```\na"), ("```a```", ""), ("```py\na\n``` x\n```",
        "a\n``` x\n"),
    ],
)  # fmt: skip
def test_fences(text: str, code: str) -> None:
    assert fenced(text) == code


@pytest.mark.parametrize("bait", ["`", "```\n", "~~~", "\n", " ", "```a\n", "   ```", "(", "\ud800", "\0", "x = 1\n"])
def test_quick_on_baits(stand_in: StandIn, bait: str) -> None:
    start = time.monotonic()
    (result,) = grade(bait * (1_000_000 // len(bait)))
    assert (result.score, result.error) == (0, None)
    assert time.monotonic() - start < 1


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec=None)) | st.text("`~\n a1", max_size=40))
def test_fenced_takes_any_text(text: str) -> None:
    assert fenced(text) in text


def test_end_to_end() -> None:
    hostile = [
        "import os\nos._exit(0)", "def f(x):\n    while True: pass",
        "class A:\n    __eq__ = lambda *_: True\ndef f(x): return A()",
        "def f(x): return 10 ** x", "raise SystemExit(0)", "\ud800", "def f(x): return __import__('socket').socket()",
    ]  # fmt: skip
    results = grade(f"So:\n```python\n{SQUARE}\n```", *hostile, SQUARE, seconds=0.5)
    assert [(result.score, result.error) for result in results] == [(1, None)] + [(0, None)] * len(hostile) + [
        (1, None)
    ]
    assert all(result.reason for result in results)


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(codec=None), max_size=200))
def test_any_text_gets_a_score(text: str) -> None:
    (result,) = grade(text, partial=True)
    assert result.error is None and result.score is not None and 0 <= result.score <= 1
    (result.reason + (result.answer or "")).encode()
