"""The golden cases of every family of built-in graders: ``rft_ilab/grading/checks/<module>.cases.jsonl``.

One object a line: ``{"grader": {...}, "sample": "...", "item": {...}, "score": 1.0}``, or ``"error": true`` in place of
the score, and an optional ``note``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.grading import checks
from rft_ilab.grading.engine import grader_of
from rft_ilab.types import Task

FILES = sorted(Path(checks.__file__).parent.glob("**/*.cases.jsonl"))
MIN_CASES = 20
KEYS = {"grader", "sample", "item"}


def cases_of(file: Path) -> list[tuple[int, dict[str, Any]]]:
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    lines = enumerate(file.read_text(encoding="utf-8").split("\n"), 1)
    return [(number, json.loads(line)) for number, line in lines if line.strip()]


def family(file: Path) -> str:
    return file.name.removesuffix(".cases.jsonl")


@pytest.mark.parametrize("file", FILES, ids=family)
def test_cases_are_well_formed_and_enough(file: Path) -> None:
    cases = cases_of(file)
    assert len(cases) >= MIN_CASES
    for line, case in cases:
        wanted = {"error"} if "error" in case else {"score"}
        assert set(case) - {"note"} == KEYS | wanted, f"{file}:{line}"
        assert isinstance(case["sample"], str) and isinstance(case["item"], dict), f"{file}:{line}"
        assert case.get("error", True) is True and "pass_threshold" not in case["grader"], f"{file}:{line}"
        assert wanted == {"error"} or 0 <= case["score"] <= 1, f"{file}:{line}"
    assert any(case.get("score") == 1 for _, case in cases) and any(case.get("score") == 0 for _, case in cases)


@pytest.mark.parametrize("file", FILES, ids=family)
def test_cases_hold(file: Path) -> None:
    """Cases of the same grader are graded together, as a run does: many checks start a process a batch."""
    batches: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for line, case in cases_of(file):
        batches.setdefault(json.dumps(case["grader"], sort_keys=True), []).append((line, case))
    wrong = []
    for config, batch in batches.items():
        pairs = []
        for line, case in batch:
            id = f"{family(file)}-{line}"
            task = Task(id=id, skill="", messages=(), reference="", item=case["item"], group="", split="train")
            pairs.append((task, case["sample"]))
        grades = grader_of(json.loads(config), "", file).grade_texts(pairs)
        for (line, case), grade in zip(batch, grades, strict=True):
            expected = None if "error" in case else pytest.approx(case["score"], abs=1e-6)
            if grade.score != expected:
                wrong.append(f"{file.name}:{line}: wanted {expected}, got {grade.score}: {grade.error or grade.reason}")
    assert not wrong, "\n".join(wrong)
