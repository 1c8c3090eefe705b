"""The cheap checks against cases worked by hand; and on any text: a score of 0 to 1, never a crash or an error."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.label import normalise
from rft_ilab.grading.checks.number import last_number
from rft_ilab.grading.engine import SkillGrader, build_grader
from rft_ilab.types import Grade
from tests.unit.taxonomies import make_rollout, make_skill, make_task

BASE = {"name": "g", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
LABEL = {**BASE, "type": "label", "labels": ["EMERGENCY", "RX_QUESTION", "REFILL"]}
NUMBER = {**BASE, "type": "number"}
FIELDS = {**BASE, "type": "json_fields"}


def grade(grader: dict[str, Any], completion: str, **item: Any) -> Grade:
    (result,) = build_grader(make_skill(grader)).grade([(make_task(item), make_rollout(completion))])
    return result


@pytest.mark.parametrize(
    ("operation", "completion", "score"),
    [
        ("eq", "Paris", 1), ("eq", "paris", 0), ("eq", "Paris ", 0), ("eq", "", 0),
        ("ne", "Paris", 0), ("neq", "Paris", 0), ("ne", "Rome", 1), ("neq", "Rome", 1),
        ("like", "It is Paris.", 1), ("like", "It is paris.", 0), ("like", "Par", 0),
        ("ilike", "It is PARIS.", 1), ("ilike", "Rome", 0),
    ],
)  # fmt: skip
def test_string_check(operation: str, completion: str, score: float) -> None:
    grader = {**BASE, "type": "string_check", "operation": operation}
    result = grade(grader, completion, reference="Paris")
    assert (result.score, result.error) == (score, None)


@pytest.mark.parametrize("operation", ["like", "ilike"])
def test_an_empty_reference_that_any_text_contains_is_an_error(operation: str) -> None:
    result = grade({**BASE, "type": "string_check", "operation": operation}, "anything", reference="")
    assert result.score is None and "empty" in (result.error or "")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("EMERGENCY", "emergency"), (" **Emergency**.\n", "emergency"), ("`rx-question`", "rx_question"),
        ("rx  question!", "rx_question"), ('"RX_QUESTION"', "rx_question"), ("not RX_QUESTION", "not_rx_question"),
        ("", ""), ("...", ""), ("RX_QUESTION REFILL", "rx_question_refill"), ("(refill)", "refill"),
    ],
)  # fmt: skip
def test_label_normalisation(text: str, key: str) -> None:
    assert normalise(text) == key


@pytest.mark.parametrize(
    ("completion", "score", "answer", "reason"),
    [
        ("EMERGENCY", 1, "EMERGENCY", "right"),
        ("emergency.", 1, "EMERGENCY", "right"),
        ("Refill", 0, "REFILL", "REFILL, expected EMERGENCY"),
        ("It is EMERGENCY", 0, None, "'It is EMERGENCY' is not one of the 3 labels; expected EMERGENCY"),
        ("EMERGENCY, REFILL", 0, None, "not one of the 3 labels"),
        ("EMERGENCY or REFILL", 0, None, "not one of the 3 labels"),
        ("not EMERGENCY", 0, None, "not one of the 3 labels"),
        ("", 0, None, "no answer; expected EMERGENCY"),
        ("\u200b", 0, None, "not one of the 3 labels"),
        ("\ud83d", 0, None, "not one of the 3 labels"),
        ("EMERGENCY " * 100_000, 0, None, "not one of the 3 labels"),
    ],
)
def test_label(completion: str, score: float, answer: str | None, reason: str) -> None:
    result = grade(LABEL, completion, reference="emergency")
    assert (result.score, result.answer, result.error) == (score, answer, None)
    assert reason in result.reason and len(result.reason) < 200
    result.reason.encode()  # printable


def test_a_reference_that_is_no_label_is_an_error() -> None:
    result = grade(LABEL, "EMERGENCY", reference="URGENT")
    assert result.score is None and result.passed is None
    assert result.error == "unknown label 'URGENT': not one of EMERGENCY, RX_QUESTION, REFILL"


@pytest.mark.parametrize(
    ("labels", "what"),
    [(["A", "a"], "the same once normalised"), (["..."], "empty once"), ([], "a list of texts"), ([1], "a list of")],
)
def test_bad_labels_do_not_build(labels: list[Any], what: str) -> None:
    with pytest.raises(GraderError, match=what):
        build_grader(make_skill({**LABEL, "labels": labels}))


@pytest.mark.parametrize(
    ("completion", "reference", "score"),
    [
        ("42", "42", 1), ("42.", "42", 1), ("The answer is 42.0", "42", 1), ("41", "42", 0), ("", "42", 0),
        ("1,234,567.50", "1234567.5", 1), ("$1,234", "1234", 1), ("-$4", "-4", 1), ("$-4", "-4", 1),
        ("\u22124", "-4", 1),
        ("1/20", "0.05", 1), ("5E-02", "0.05", 1), ("5%", "0.05", 1), ("5 %", "1/20", 1), ("5", "5%", 0),
        (".05", "5e-2", 1),
        ("3 + 4 = 7", "7", 1), ("7, not 3", "7", 0), ("3 or 7", "7", 1), ("3-4", "4", 1), ("10 - 4", "4", 1),
        ("x=-4", "-4", 1),
        ("nan", "42", 0), ("inf", "42", 0), ("1e999", "42", 0), ("1e-99999999", "0", 0), ("1/0", "42", 0),
        ("9" * 5000, "42", 0),
        ("#### 18", "#### 18", 1), ("1,2,3", "3", 1), ("forty-two", "42", 0), ("4\u0662", "4", 1), ("-0", "0", 1),
        ("0.30000000000000004", "0.3", 0),
    ],
)  # fmt: skip
def test_number(completion: str, reference: str, score: float) -> None:
    result = grade(NUMBER, completion, reference=reference)
    assert (result.score, result.error) == (score, None), result


@pytest.mark.parametrize(
    ("tolerances", "completion", "score"),
    [
        ({"tolerance": 0.01}, "10.01", 1), ({"tolerance": 0.01}, "9.99", 1), ({"tolerance": 0.01}, "10.0101", 0),
        ({"relative_tolerance": 0.05}, "10.5", 1), ({"relative_tolerance": 0.05}, "10.51", 0),
        ({"tolerance": 0.1, "relative_tolerance": 0.05}, "10.6", 1), ({}, "10.001", 0),
    ],
)  # fmt: skip
def test_number_tolerances_are_exact(tolerances: dict[str, float], completion: str, score: float) -> None:
    assert grade({**NUMBER, **tolerances}, completion, reference=10).score == score


@pytest.mark.parametrize(
    "bad",
    [{"tolerance": -1}, {"tolerance": "1"}, {"tolerance": True}, {"tolerance": 10**400}, {"relative_tolerance": -1}],
)
def test_bad_tolerances_do_not_build(bad: dict[str, Any]) -> None:
    with pytest.raises(GraderError, match="tolerance"):
        build_grader(make_skill({**NUMBER, **bad}))


@pytest.mark.parametrize("reference", ["no number", "1e999", ""])
def test_a_reference_without_a_number_is_an_error(reference: str) -> None:
    assert grade(NUMBER, "1", reference=reference).error is not None


def test_a_number_cut_by_the_window_is_not_read_as_a_shorter_one() -> None:
    assert last_number("142" + " " * 4094) is None
    assert last_number("1 42" + " " * 4094) is None
    assert grade(NUMBER, "x" * 1_000_000 + " 42", reference="42").score == 1


@pytest.mark.parametrize("bait", ["1,234," * 200_000 + "5", "-" * 1_000_000, "1" * 1_000_000, "$ " * 500_000])
def test_number_is_quick_on_baits(bait: str) -> None:
    start = time.monotonic()
    assert grade(NUMBER, bait, reference="42").score == 0
    assert time.monotonic() - start < 1


ORDER = {"item": "mug", "quantity": 2, "gift": True}


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ('{"item": "mug", "quantity": 2, "gift": true}', 1),
        (' {"gift":true,"quantity":2.0,"item":"mug"}\n', 1),
        ('{"item": "mug", "quantity": "2", "gift": true}', 0),
        ('{"item": "mug", "quantity": 2, "gift": 1}', 0),
        ('{"item": "Mug", "quantity": 2, "gift": true}', 0),
        ('{"item": "mug", "quantity": 2}', 0),
        ('{"item": "mug", "quantity": 2, "gift": true, "note": ""}', 0),
        ('{"item": "cup", "item": "mug", "quantity": 2, "gift": true}', 0),
        ('[{"item": "mug", "quantity": 2, "gift": true}]', 0),
        ('```json\n{"item": "mug", "quantity": 2, "gift": true}\n```', 0),
        ('{"item": "mug"', 0), ("", 0), ("null", 0), ("{}", 0), ("NaN", 0), ('{"item": NaN}', 0),
        ('{"item": 1e999}', 0),
        ("[" * 100_000, 0), ('{"a":' * 20_000 + "1" + "}" * 20_000, 0), ('{"quantity": ' + "9" * 5000 + "}", 0),
        ('{"item": "\ud800"}', 0), ('{"item": "\\ud800"}', 0),
    ],
)  # fmt: skip
def test_json_fields(completion: str, score: float) -> None:
    result = grade(FIELDS, completion, reference=ORDER)
    assert (result.score, result.error) == (score, None)
    result.reason.encode()


def test_json_fields_of_the_reference_alone_count_when_named() -> None:
    named = {**FIELDS, "fields": ["item", "quantity"]}
    assert grade(named, '{"item": "mug", "quantity": 2, "gift": false}', reference=ORDER).score == 1
    assert grade(named, '{"item": "mug", "quantity": 2}', reference=ORDER).score == 1
    assert grade(named, '{"item": "mug", "quantity": 2, "other": 1}', reference=ORDER).score == 0


def test_json_fields_partial_is_the_share_of_right_fields() -> None:
    partial = {**FIELDS, "partial": True}
    result = grade(partial, '{"item": "mug", "quantity": 3, "gift": true}', reference=ORDER)
    assert result.score == pytest.approx(2 / 3) and result.passed is False
    assert result.reason == "quantity: '3', expected '2'"
    assert grade(partial, '{"item": "mug", "quantity": 2, "gift": true, "x": 1}', reference=ORDER).score == 0
    assert grade({**partial, "pass_threshold": 0.6}, '{"item": "mug", "gift": true}', reference=ORDER).passed is True


@pytest.mark.parametrize("reference", ["text", "[1]", {}, 3])
def test_json_reference_that_is_no_object_is_an_error(reference: Any) -> None:
    assert grade(FIELDS, "{}", reference=reference).error is not None


def test_json_field_that_the_reference_lacks_is_an_error() -> None:
    assert grade({**FIELDS, "fields": ["x"]}, "{}", reference=ORDER).error == "the reference has no field 'x'"


ANY = st.text(st.characters(codec=None)) | st.from_regex(r"[-+$]?[0-9.,eE/%]{0,12} ?[0-9]*", fullmatch=True)
GRADERS: list[tuple[SkillGrader, dict[str, Any]]] = [
    (build_grader(make_skill(LABEL)), {"reference": "REFILL"}),
    (build_grader(make_skill({**NUMBER, "tolerance": 1})), {"reference": 7}),
    (build_grader(make_skill({**FIELDS, "partial": True})), {"reference": ORDER}),
    *(
        (build_grader(make_skill({**BASE, "type": "string_check", "operation": op})), {"reference": "x"})
        for op in ("eq", "ne", "like", "ilike")
    ),
    (build_grader(make_skill({**LABEL, "input": "{{sample.output_json.a[0]}}"})), {"reference": "REFILL"}),
]


@settings(max_examples=150, deadline=None)
@given(ANY)
def test_any_text_gets_a_score_and_never_an_error(text: str) -> None:
    for grader, item in GRADERS:
        (result,) = grader.grade([(make_task(item), make_rollout(text))])
        assert result.error is None and result.score is not None and 0 <= result.score <= 1
        (result.reason + (result.answer or "")).encode()


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_number_reads_what_python_writes(value: int) -> None:
    for text in (f"{value}", f"{value:,}", f"so {value}.", f"{value}.00", f"{value}e0", f"{value * 100}%"):
        assert grade(NUMBER, text, reference=value).score == 1, text
