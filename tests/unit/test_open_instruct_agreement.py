"""Our graders against what Open-Instruct's verifiers say: the cases of its own unit tests, and 2,581 recorded scores.

``tests/oracle/open_instruct_scores.jsonl.gz`` was written by ``tests/openinstruct/record_scores.py``. Every answer on
which the two differ falls under a reason of ``REASONS``, and docs/open-instruct-rewards.md has the same numbers. Print
them with ``pytest -s tests/unit/test_open_instruct_agreement.py``.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.grading.engine import grader_of
from rft_ilab.scaleout.openinstruct.instructions import ifeval_instructions, old_instructions
from rft_ilab.scaleout.openinstruct.verifier_graders import MAPPED, REFUSED, combined, refusal
from tests.unit.taxonomies import make_rollout, make_task

ROOT = Path(__file__).parents[2]
SCORES = [
    json.loads(line)
    for line in gzip.decompress((ROOT / "tests/oracle/open_instruct_scores.jsonl.gz").read_bytes()).splitlines()
]
UNIT = [json.loads(line) for line in (ROOT / "tests/oracle/grader_unit_cases.jsonl").read_bytes().splitlines()]
Row = dict[str, Any]

#: verifier -> answers on which both agree, answers on which they differ; labels that are refused count as neither
COUNTS = {
    "gsm8k": (169, 41), "math": (167, 29), "strict_math": (157, 39), "flan": (237, 0), "string_matcher": (237, 0),
    "puzzle": (229, 8), "string_f1": (229, 8), "re_search": (213, 24), "re_search_f1": (229, 8), "ifeval": (74, 0),
    "ifeval_old": (273, 7), "code": (18, 11),
}  # fmt: skip
SLOW = ("math", "strict_math", "code")
#: verifier -> (what the answer or the label matches, why the two differ)
REASONS: dict[str, list[tuple[str, str]]] = {
    "gsm8k": [
        (r"\.0+$|e0$|/1$|^-0$|^7$", "values are compared here, texts there"),
        (r"\d-\d", "a minus after a digit is a sign there"),
    ],
    "puzzle": [(r"^<\|assistant\|>", "the mark <|assistant|> is dropped there")],
    "string_f1": [(r"^<\|assistant\|>", "the mark <|assistant|> is dropped there")],
    "re_search": [
        (r"(?s)<finish>.*<finish>", "of several pairs of marks the first counts there, the last here"),
        (r"<FINISH>", "the case of the marks does not count there"),
    ],
    "re_search_f1": [(r"^<finish>[^<]*$", "one of the two marks is enough there")],
    "ifeval_old": [
        (r"\*\*\*", "a line of asterisks is a bullet, a highlight there"),
        (r"paragraph", "a text in which langdetect sees no English is not English lower case here"),
    ],
    "math": [
        (r"\\boxed\{7\}", "two boxed answers are a set here; the last counts there"),
        (r"\\boxed [^{]", "\\boxed without braces is read there only"),
        (r"\\text", "words are compared as words in some places there, in others here"),
        (r"^The answer is|\\fbox", "an answer in a sentence, or in \\fbox, is read here only"),
    ],
    "strict_math": [(r"", "without `Final Answer: ...` all the text is compared there, here the answer is looked for")],
    "code": [(r"", "other limits of what a program may do, and of time")],
}  # fmt: skip


def compared(verifier: str) -> tuple[int, list[Row], int]:
    """Answers on which both agree, rows on which they differ, labels that are refused."""
    mapped = MAPPED[verifier]
    rows, pairs, refused = [], [], 0
    for row in (one for one in SCORES if one["verifier"] == verifier):
        try:
            item = {"gold": mapped.gold(row["label"])}
        except ValueError:
            refused += 1
            continue
        rows.append(row)
        pairs.append((make_task(item), make_rollout(row["answer"])))
    grader = grader_of(mapped.grader, verifier, Path("grader"))
    grades = grader.grade(pairs)
    # sympy is cut off after 0.8 s of processor time, which a busy machine may use up: asked once more.
    again = [i for i, grade in enumerate(grades) if grade.error is not None]
    for i, grade in zip(again, grader.grade([pairs[i] for i in again]) if again else [], strict=True):
        grades[i] = grade
    assert not [grade.error for grade in grades if grade.error is not None]
    differ = [
        {**row, "ours": grade.score}
        for row, grade in zip(rows, grades, strict=True)
        if grade.score != pytest.approx(row["expected"], abs=1e-9)
    ]
    return len(rows) - len(differ), differ, refused


@pytest.mark.parametrize("verifier", [pytest.param(v, marks=pytest.mark.slow if v in SLOW else []) for v in MAPPED])
def test_recorded_scores(verifier: str) -> None:
    agree, differ, refused = compared(verifier)
    print(f"\n{verifier}: {agree} of {agree + len(differ)} agree, {refused} labels refused")
    assert (agree, len(differ)) == COUNTS[verifier], differ
    reasons = Counter[str]()
    for row in differ:
        found = [why for pattern, why in REASONS.get(verifier, []) if re.search(pattern, row["answer"].strip())]
        assert found, row
        reasons[found[0]] += 1
    for why, count in reasons.items():
        print(f"  {count}: {why}")


@pytest.mark.parametrize(
    ("kind", "verifier"), [("oi_puzzle", "puzzle"), ("oi_string_f1", "string_f1"), ("oi_gsm8k", "gsm8k")]
)
def test_its_own_unit_tests(kind: str, verifier: str) -> None:
    rows = [row for row in UNIT if row["kind"] == kind]
    mapped = MAPPED[verifier]
    pairs = [(make_task({"gold": mapped.gold(row["gold"])}), make_rollout(row["prediction"])) for row in rows]
    grades = grader_of(mapped.grader, verifier, Path("grader")).grade(pairs)
    assert [grade.score for grade in grades] == [pytest.approx(row["expected"], abs=1e-5) for row in rows] and rows


def test_the_docs_have_these_numbers() -> None:
    text = (ROOT / "docs/open-instruct-rewards.md").read_text(encoding="utf-8")
    for verifier, (agree, differ) in COUNTS.items():
        assert re.search(rf"(?m)^\| `{verifier}` \|.* {agree} of {agree + differ} \|", text), verifier
    for verifier in REFUSED:
        assert f"`{verifier}`" in text


def test_references_are_right_and_all_registered_names_are_known() -> None:
    labels = {"string_f1": ["Paris", "Rome"], "re_search": '["Paris", "Rome"]', "re_search_f1": '["Paris"]'}
    for name, mapped in MAPPED.items():
        if mapped.reference is None:
            continue
        gold = mapped.gold(labels.get(name, "42"))
        pairs = [(make_task({"gold": gold}), make_rollout(text)) for text in (mapped.reference(gold), "", "wrong")]
        scores = [grade.score for grade in grader_of(mapped.grader, name, Path("grader")).grade(pairs)]
        assert scores == [1.0, 0.0, 0.0], name
    names = [*MAPPED, *REFUSED, "general-quality", "general-web_instruct_general_verifier"]
    assert [name for name in names if refusal(name) is None] == list(MAPPED)
    assert refusal("GSM8K") is None and refusal("mine") == "no verifier of Open-Instruct"


def test_several_verifiers_are_their_mean() -> None:
    mapped = combined(["puzzle", "gsm8k"])
    gold = mapped.gold(["It is 42", "42"])
    pairs = [(make_task({"gold": gold}), make_rollout(text)) for text in ("It is 42", "it was 42", "")]
    scores = [grade.score for grade in grader_of(mapped.grader, "g", Path("grader")).grade(pairs)]
    assert scores == [1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match="code_stdio: programs"):
        combined(["gsm8k", "code_stdio"])
    with pytest.raises(ValueError, match="formula of two graders already"):
        combined(["gsm8k", "re_search_f1"])


@pytest.mark.parametrize(
    ("label", "what"),
    [
        ("", "neither JSON nor"), ("[]", "no list with one object"), ("[{}]", "two lists of equal length"),
        ("[{'instruction_id': ['new:copy_span_idx'], 'kwargs': [{}]}]", "unknown instruction"),
        ("[{'instruction_id': ['punctuation:no_comma'], 'kwargs': [3]}]", "kwargs must be objects"),
        ("__import__('os').system('true')", "neither JSON nor"), ("(" * 10_000, "neither JSON nor"),
    ],
)  # fmt: skip
def test_labels_of_ifeval_that_cannot_be_used(label: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ifeval_instructions(label)


@pytest.mark.parametrize(
    ("label", "what"),
    [
        ('{"func_name": "verify_keyword_frequency", "word": "a", "N": 2}', "has no equal"),
        ('{"func_name": "validate_word_constraint", "N": 2, "quantifier": "around"}', "'around'"),
        ('{"func_name": "validate_title", "N": 2}', "was given N"), ("72", "no func_name"),
    ],
)  # fmt: skip
def test_labels_of_ifeval_old_that_cannot_be_used(label: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        old_instructions(label)


def test_pickled_tests_are_never_read() -> None:
    with pytest.raises(ValueError, match="pickled tests are not read"):
        MAPPED["code"].gold("eJxrYJkaygABPbwZqcl5")
