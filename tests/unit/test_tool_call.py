"""``tool_call``: the three ways to write a call are one, and nothing is evaluated."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.calls import read_call
from rft_ilab.grading.checks.tool_call import accepted
from rft_ilab.grading.engine import build_grader
from rft_ilab.types import Grade
from tests.unit.taxonomies import make_rollout, make_skill, make_task

GRADER = {"type": "tool_call", "name": "g", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
CALL = {"name": "f", "arguments": {"a": 1}}


def grade(completion: str, reference: Any = CALL, **options: Any) -> Grade:
    grader = build_grader(make_skill({**GRADER, **options}))
    (result,) = grader.grade([(make_task({"reference": reference}), make_rollout(completion))])
    return result


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(
    lambda name: name.isidentifier() and not __import__("keyword").iskeyword(name)
)


@settings(max_examples=100, deadline=None)
@given(NAMES, st.dictionaries(NAMES, JSON, max_size=3))
def test_every_way_to_write_a_call_is_right(name: str, arguments: dict[str, Any]) -> None:
    reference = {"name": name, "arguments": arguments}
    python = f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    api = [{"id": "c", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}]
    for text in (json.dumps(reference), json.dumps([reference]), json.dumps(api), python, f"[{python}]"):
        if len(text) <= 16_384:
            assert grade(text, reference).score == 1, text
    assert grade(python + " ", {"name": name + "x", "arguments": arguments}).score == 0
    assert grade(python, {"name": name, "arguments": {**arguments, "another": 1}}).score == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("f(1)", "without a name"), ("f(a=1, a=2)", "twice"), ("f(**{'a': 1})", "unpacked"), ("f(a=b)", "no literal"),
        ("f(a=f())", "no literal"), ("f(a=1j)", "no literal"), ("f(a=b'x')", "no literal"), ("f(a={1})", "no literal"),
        ("f(a={1: 2})", "keys"), ("f(a=-True)", "no literal"), ("f(a=f'{1}')", "no literal"), ("f(a=...)",
        "no literal"),
        ("f()()", "plain name"), ("f[0]()", "plain name"), ("(lambda: 1)()", "plain name"), ("f", "no call"),
        ("f(a=1), g()", "2 calls"), ("f(a=1); g()", "neither"), ("x = f(a=1)", "neither"), ("f(a=1) # yes", ""),
        ('{"name": "f"}', "exactly name and arguments"), ('{"name": 1, "arguments": {}}', "no name"),
        ('{"name": "f", "arguments": []}', "no object"), ('{"name": "f", "arguments": "x"}', "Expecting"),
        ('{"name": "f", "arguments": {}, "x": 1}', "exactly"),
        ('{"type": "x", "function": {"name": "f", "arguments": {}}}', "exactly"),
        ("[]", "0 calls"), ("[{}]", "exactly"), ("[{", "not JSON"), ("3", "exactly"),
    ],
)  # fmt: skip
def test_what_is_no_call(text: str, problem: str) -> None:
    if not problem:
        assert read_call(text).arguments == {"a": 1}
        return
    with pytest.raises(ValueError, match=problem):
        read_call(text)


def test_an_empty_name_is_never_right() -> None:
    for reference in ({"name": "", "arguments": {}}, {"name": " ", "arguments": {}}, [{"": {}}]):
        for options in ({}, {"accept": True}, {"partial": True}):
            result = grade('{"name": "", "arguments": {}}', reference, **options)
            assert result.score is None and result.error


@pytest.mark.parametrize(
    ("value", "right", "verdict"),
    [
        ("new york", ["New York", "NYC"], True), ("N.Y.C.", ["New York", "NYC"], True), ("Boston", ["New York"], False),
        (1, [1.0], True), (True, [1], False), (1, [True], False), ("1", [1], False), ("", [1, ""], True),
        (None, [1], False),
        ([1, 2], [[1, 2], [2, 1]], True), ([1], [[1, 2]], False), (["a b"], [["A-B"]], True), ({}, [{"a": ["",
        1]}], True),
        ({"a": 2}, [{"a": ["", 1]}], False), ({"b": 1}, [{"a": ["", 1]}], False), ([{"a": 1}], [[{"a": [1]}]], True),
        ({"a": 1}, [3], False), ("it's", ['it"s'], True), ({}, [{"a": "x"}], False), ({}, [{"a": 1}], False),
    ],
)  # fmt: skip
def test_accepted_as_in_bfcl(value: Any, right: Any, verdict: bool) -> None:
    assert accepted(value, right) is verdict


def test_partial_pays_for_arguments_only() -> None:
    reference = {"name": "f", "arguments": {"a": 1, "b": 2, "c": 3, "d": 4}}
    scores = [
        grade(text, reference, partial=True).score for text in ("f()", "f(a=1)", "f(a=1, b=2, c=3, d=5)", "f(x=1)")
    ]
    assert scores == [0, 0.25, 0.75, 0]
    assert grade("f()", {"name": "f", "arguments": {}}, partial=True).score == 1
    assert grade("f(x=1)", {"name": "f", "arguments": {}}, partial=True).score == 0


@pytest.mark.parametrize("bad", [{"accept": 1}, {"partial": "yes"}, {"input": "{{sample.x}}"}])
def test_bad_options_do_not_build(bad: dict[str, Any]) -> None:
    with pytest.raises(GraderError):
        build_grader(make_skill({**GRADER, **bad}))


BAITS = [
    "-",
    "(",
    "[",
    "{",
    "f(a=",
    "{1:",
    "a.",
    "f()",
    "not ",
    "lambda:",
    "1**",
    "1+",
    "1<",
    "'a'",
    "f'{",
    "9",
    "\0",
    "\ud800",
]


@pytest.mark.parametrize("bait", BAITS)
def test_quick_on_baits(bait: str) -> None:
    for size in (1_000_000, 16_300, 180):
        for text in (bait * (size // len(bait)), "f(a=" + bait * (size // len(bait)) + "1)"):
            start = time.monotonic()
            result = grade(text)
            assert (result.score, result.error) == (0, None)
            assert time.monotonic() - start < 1


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec=None)) | st.text("f(a=1,'\"[]{}:- )", max_size=20).map("f({}".format))
def test_any_text_gets_a_score(text: str) -> None:
    for options in ({}, {"partial": True}):
        result = grade(text, **options)
        assert result.error is None and result.score is not None and 0 <= result.score <= 1
        (result.reason + (result.answer or "")).encode()
