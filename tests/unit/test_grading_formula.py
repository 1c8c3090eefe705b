"""Formulas against values worked by hand and against trees of known value; multi: an error stays an error."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import GraderError
from rft_ilab.grading.engine import build_grader
from rft_ilab.grading.formula import Formula
from rft_ilab.types import Grade
from tests.unit.taxonomies import make_rollout, make_skill, make_task

VALUES = {"a": 1.0, "b": 0.5, "c_2": 0.25}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 1.0), ("0.5 * a + 0.5 * b", 0.75), ("a - b - c_2", 0.25), ("a / b / 2", 1.0), ("2 ^ 3 ^ 2", 512.0),
        ("-2^2", -4.0),
        ("2^-1", 0.5), ("(a + b) * 2", 3.0), ("--a", 1.0), ("+a", 1.0), ("a - -b", 1.5), ("min(a, b, c_2)", 0.25),
        ("max(a,b)", 1.0),
        ("min(a)", 1.0), ("abs(b - a)", 0.5), ("floor(1.7)", 1.0), ("ceil(1.2)", 2.0), ("exp(0)", 1.0),
        ("sqrt(c_2)", 0.5),
        ("log(exp(1))", 1.0), ("1e-1", 0.1), (".5", 0.5), ("5.", 5.0), ("  a\t*\nb ", 0.5), ("2*a^2", 2.0),
        ("(((a)))", 1.0),
    ],
)  # fmt: skip
def test_values(text: str, value: float) -> None:
    assert Formula(text)(VALUES) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize("more", ["+0", "-0", "*1", "/1"])
def test_a_formula_of_a_thousand_terms_has_a_value(more: str) -> None:
    assert Formula("a" + more * 999)({"a": 1.0}) == 1.0


@pytest.mark.parametrize(
    "text",
    ["", " ", "a +", "* a", "a b", "(a", "a)", "min()", "min(a,)", "abs(a, b)", "eval(a)", "a.b", "a[0]", "a; b",
    "a ** b",
     "__import__('os')", "a if b else c_2", "lambda: 1", "1_000", "0x10", "'a'", "a % b", "a // b", "min",
     "(" * 500 + "a" + ")" * 500,
     "a^" * 500 + "a", "a" * 3000, "é"],
)  # fmt: skip
def test_what_is_no_formula_does_not_parse(text: str) -> None:
    if text == "min":  # a function's name alone reads as a variable; MultiCheck refuses it as unknown
        assert Formula(text).names == {"min"}
        return
    with pytest.raises(GraderError, match="formula"):
        Formula(text)


@pytest.mark.parametrize("text", ["a / 0", "sqrt(-a)", "log(0)", "exp(9999)", "10^999", "(-a)^0.5", "0^-1"])
def test_what_has_no_value_raises(text: str) -> None:
    with pytest.raises((ArithmeticError, ValueError)):
        Formula(text)(VALUES)


Tree = st.recursive(
    st.sampled_from(["a", "b", "c_2"]).map(lambda n: (n, VALUES[n]))
    | st.integers(0, 50).map(lambda n: (str(n / 4), n / 4)),
    lambda inner: (
        st.tuples(inner, inner, st.sampled_from("+-*")).map(
            lambda t: (
                f"({t[0][0]} {t[2]} {t[1][0]})",
                {"+": t[0][1] + t[1][1], "-": t[0][1] - t[1][1], "*": t[0][1] * t[1][1]}[t[2]],
            )
        )
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda ts: ("max(" + ", ".join(t[0] for t in ts) + ")", max(t[1] for t in ts))
        )
        | inner.map(lambda t: (f"-{t[0]}", -t[1]))
        | inner.map(lambda t: (f"abs({t[0]})", abs(t[1])))
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(Tree)
def test_trees(tree: tuple[str, float]) -> None:
    assert Formula(tree[0])(VALUES) == tree[1]


@settings(deadline=None)
@given(st.text(alphabet="ab+-*/^(), .019minaxe", max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        value = Formula(text)({"a": 0.5, "b": 0.0, "m": 1.0})
    except (GraderError, ArithmeticError, ValueError, KeyError):
        return
    assert isinstance(value, float)


def check(wanted: str) -> dict[str, str]:
    return {
        "type": "string_check",
        "name": wanted,
        "input": "{{sample.output_text}}",
        "reference": wanted,
        "operation": "like",
    }


def multi(formula: str, **extra: Any) -> dict[str, Any]:
    return {
        "type": "multi",
        "name": "m",
        "graders": {"x": check("x"), "y": check("y")},
        "calculate_output": formula,
        **extra,
    }


def grade(grader: dict[str, Any], completion: str) -> Grade:
    (result,) = build_grader(make_skill(grader)).grade([(make_task({}), make_rollout(completion))])
    return result


@pytest.mark.parametrize(
    ("formula", "completion", "score", "passed"),
    [
        ("0.5 * x + 0.5 * y", "x y", 1.0, True), ("0.5 * x + 0.5 * y", "x", 0.5, False),
        ("0.5 * x + 0.5 * y", "", 0.0, False),
        ("0.7*x + 0.2*y + 0.1*x", "x y", 1.0, True), ("min(x, y)", "x", 0.0, False), ("max(x, y)", "x", 1.0, True),
        ("x * (1 - y)", "x y", 0.0, False), ("0.1 + 0.2 - 0.3 + 0*x", "", 0.0, False),
    ],
)  # fmt: skip
def test_multi(formula: str, completion: str, score: float, passed: bool) -> None:
    result = grade(multi(formula), completion)
    assert (result.score, result.passed, result.error) == (score, passed, None)


def test_multi_takes_a_list_and_explains_itself() -> None:
    result = grade(multi("(x + y) / 2", graders=[check("x"), check("y")]), "x")
    assert result.score == 0.5 and result.reason == "x 1; y 0 ('x' is not a text with 'y')"


@pytest.mark.parametrize(
    "formula", ["x + y", "x - 2", "1 / (1 - x)", "log(x - 1)", "exp(999 * x)", "10^999 - 10^999 * x"]
)
def test_a_formula_outside_0_to_1_is_an_error_never_clamped(formula: str) -> None:
    result = grade(multi(formula), "x y")
    assert result.score is None and "formula" in (result.error or "")


def test_an_error_of_a_part_is_an_error_of_the_whole() -> None:
    broken = {**check("x"), "reference": "{{item.absent}}"}
    result = grade(multi("0 * x + y", graders={"x": broken, "y": check("y")}), "y")
    assert result.score is None and result.error == "x: the task has no field item.absent"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"calculate_output": "x + z"}, "unknown name 'z'"),
        ({"calculate_output": "x +"}, "unexpected end"),
        ({"graders": {}}, "no graders"),
        ({"graders": "x"}, "no graders"),
        ({"graders": [check("x"), check("x")]}, "a name of its own"),
        ({"graders": {"x": multi("x")}}, "multi grader inside a multi"),
        ({"graders": {"min": check("x")}}, "cannot stand in a formula"),
        ({"graders": {"a b": check("x")}}, "cannot stand in a formula"),
        ({"graders": {"x": {**check("x"), "pass_threshold": 0.5}}}, "inside a multi grader has a pass_threshold"),
        ({"graders": {"x": {**check("x"), "operation": "~"}}}, "grader 'x': unknown operation"),
        ({"graders": {"x": 3}}, "must be a JSON object"),
    ],
)
def test_a_bad_multi_does_not_build(change: dict[str, Any], what: str) -> None:
    with pytest.raises(GraderError, match=what):
        build_grader(
            make_skill(multi("x", **change) if "calculate_output" not in change else multi(**_as_formula(change)))
        )


def _as_formula(change: dict[str, Any]) -> dict[str, Any]:
    return {"formula": change["calculate_output"]}


def test_functions_are_those_of_math() -> None:
    assert Formula("exp(b) + log(b) + sqrt(b)")(VALUES) == math.exp(0.5) + math.log(0.5) + math.sqrt(0.5)
