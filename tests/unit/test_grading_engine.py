"""The engine: errors are never numbers, bad graders do not build, and cheap checks are cheap."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.errors import GraderError
from rft_ilab.grading.engine import Each, SkillGrader, build_grader, is_score
from rft_ilab.grading.registry import NAMES
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.types import UngradedError
from tests.unit.taxonomies import LABEL_GRADER, make_rollout, make_skill, make_task

PAIR = (make_task({"reference": "YES"}), make_rollout("yes"))


class Fixed:
    def __init__(self, mark: Mark) -> None:
        self._mark = mark

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        return [self._mark] * len(samples)


class Raising:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def mark_one(self, sample: Sample) -> Mark:
        raise self._error


class Subclass(float):
    pass


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.0000001, "1", None, True, 1, Subclass(1)])
def test_what_is_no_score_becomes_an_error(score: Any) -> None:
    assert not is_score(score)
    (grade,) = SkillGrader(Fixed(Mark(score)), 1.0, "d").grade([PAIR])
    assert grade.score is None and grade.passed is None and "not a number from 0 to 1" in (grade.error or "")
    with pytest.raises(UngradedError):
        _ = grade.reward


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("x"), KeyError("x"), RecursionError(), TypeError("x"), ValueError("x")]
)
def test_a_check_that_raises_is_an_error(error: Exception) -> None:
    (grade,) = SkillGrader(Each(Raising(error)), 1.0, "d").grade([PAIR])
    assert grade.score is None and type(error).__name__ in (grade.error or "")


def test_a_missing_item_field_is_an_error_not_a_wrong_answer() -> None:
    grader = build_grader(make_skill({**LABEL_GRADER, "reference": "{{item.absent}}"}))
    (grade,) = grader.grade([PAIR])
    assert grade.score is None and grade.error == "the task has no field item.absent"


def test_grades_carry_identity_and_keep_order() -> None:
    grader = build_grader(make_skill({**LABEL_GRADER, "pass_threshold": 0.5}))
    task = make_task({"reference": "YES"})
    grades = grader.grade([(task, make_rollout(text, index=i)) for i, text in enumerate(["yes", "no", "?"])])
    assert [(g.index, g.score, g.passed, g.answer) for g in grades] == [
        (0, 1, True, "YES"),
        (1, 0, False, "NO"),
        (2, 0, False, None),
    ]
    assert {(g.task_id, g.policy_id, g.grader_digest) for g in grades} == {("t", "p", "g" * 64)}
    assert grader.digest == "g" * 64 and grader.grade([]) == []


def test_a_rollout_of_another_task_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="paired with"):
        build_grader(make_skill(LABEL_GRADER)).grade([(make_task({}, id="a"), make_rollout("x", id="b"))])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"type": "text_likeness"}, "unknown grader type 'text_likeness'"),
        ({"type": None}, "unknown grader type None"),
        ({"type": ["label"]}, "unknown grader type"),
        ({"labels": None}, "'labels' of a label grader must be a list of texts"),
        ({"extra": 1}, "unknown key 'extra' in a label grader"),
        ({"input": 3}, "'input' of a label grader must be a text"),
        ({"name": 3}, "name must be a text"),
        ({"input": "{{item.a"}, "never closes"),
        ({"pass_threshold": 0}, "pass_threshold 0"),
        ({"pass_threshold": 1.5}, "pass_threshold 1.5"),
        ({"pass_threshold": True}, "pass_threshold True"),
        ({"pass_threshold": "1"}, "pass_threshold '1'"),
    ],
)
def test_bad_graders_do_not_build(change: dict[str, Any], what: str) -> None:
    with pytest.raises(GraderError, match=what.replace("[", r"\[")) as caught:
        build_grader(make_skill({**LABEL_GRADER, **change}))
    assert (caught.value.where, caught.value.line) == (Path("leaf/grader.json"), 1)
    assert caught.value.fix and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["input", "reference", "labels"])
def test_missing_keys_are_named(key: str) -> None:
    config = {k: v for k, v in LABEL_GRADER.items() if k != key}
    with pytest.raises(GraderError, match=f"label grader has no '{key}'"):
        build_grader(make_skill(config))


def test_every_example_of_the_documentation_builds() -> None:
    text = (Path(__file__).parents[2] / "docs/grader-types.md").read_text(encoding="utf-8")
    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    assert {example["type"] for example in examples} == set(NAMES)
    for example in examples:
        if example["type"] != "ref":
            build_grader(make_skill(example))


def test_cheap_checks_are_cheap() -> None:
    grader = build_grader(make_skill(LABEL_GRADER))
    pairs = [PAIR] * 5000
    start = time.process_time()
    grader.grade(pairs)
    assert (time.process_time() - start) / len(pairs) < 300e-6  # measured: about 15 microseconds
