"""``ifeval`` against the recorded verdicts of the original's own tests, and on any text at all."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.ifeval.check import variants
from rft_ilab.grading.checks.ifeval.instructions import INSTRUCTIONS, instruction
from rft_ilab.grading.checks.ifeval.sentences import sentences
from rft_ilab.grading.engine import build_grader
from rft_ilab.types import Grade
from tests.unit.taxonomies import make_rollout, make_skill, make_task

ORACLE = Path(__file__).parents[1] / "oracle" / "ifeval_unit_calls.jsonl"
CALLS = [json.loads(line) for line in ORACLE.read_text(encoding="utf-8").splitlines()]
#: ids that the original's tests made up -> the public ones
PUBLIC = {
    "detectable_format:exact_number_bullet_points": "detectable_format:number_bullet_lists",
    "detectable_format:minimum_number_highlighted_sections": "detectable_format:number_highlighted_sections",
    "detectable_format:rephrasing": "detectable_format:rephrase",
    "keywords:include_keywords": "keywords:existence",
    "keywords:keyword_frequency": "keywords:frequency",
    "length_constraint:number_paragraphs": "length_constraints:number_paragraphs",
    "length_constraint:number_words": "length_constraints:number_words",
}
GRADER = {"type": "ifeval", "name": "g", "input": "{{sample.output_text}}"}
#: one argument of each kind, so that every instruction can be tried
ARGUMENTS = {"count": 2, "relation": "at least", "text": "aaaab", "texts": ["aaaab", "a b"], "letter": "a"}
ALL = [
    instruction(id, {name: "en" if kind == "language" else ARGUMENTS[kind] for name, kind in kinds.items()})
    for id, (_, kinds) in INSTRUCTIONS.items()
]
SLOW = [
    "a", "[", "* ", "\n", " ", "<<", ". ", "...a", "!)", '."', "A ", '"', "p. ", "a.b@", "-\n", "*a\n", "Section 1",
    "\u0130",
    "\u0905", "http://", "a\n\n", "***", "1", "\ud800", "a@b.", "a-b_c.", "A'S ", "[[]", "{", "\x1c", "aaaa",
]  # fmt: skip


def grade(completion: str, grader: dict[str, Any] | None = None, **item: Any) -> Grade:
    skill = make_skill({**GRADER, **(grader or {})})
    (result,) = build_grader(skill).grade([(make_task(item), make_rollout(completion))])
    return result


@pytest.mark.parametrize("call", CALLS, ids=[call["id"] for call in CALLS])
def test_agrees_with_the_tests_of_the_original(call: dict[str, Any]) -> None:
    id = PUBLIC.get(call["instruction_id"], call["instruction_id"])
    assert instruction(id, call["kwargs"] or {}).holds(call["response"]) is call["expected"]


def test_all_instructions_of_the_paper_are_there() -> None:
    assert len(CALLS) == 94 and len(INSTRUCTIONS) == 25 + 4


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0), ("One", 1), ("One. Two! Three?", 3), ("One.\nTwo.", 2), ("Line\nLine", 1), ("Mr. Smith left.", 1),
        ("It costs 3.50 dollars. Fine.", 2), ("1. First.\n2. Second.", 4), ("e.g. this", 2), ("See (this one.) Then",
        2),
        ("Wait... what", 1), ("Wait... The end.", 2), ("Really?! Yes.", 2), ('"Why?" she said.', 2),
        ("**Bold.** Next.", 2),
        ("a.b.c", 1), ("J. R. Smith", 1), ("We met in the U.S. They left.", 2), ("...", 1),
        ("\u201cHi.\u201d She left.", 2),
    ],
)  # fmt: skip
def test_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_loose_reads_eight_texts_at_most() -> None:
    assert len(variants("*a*\n*b*\n*c*")) == 8
    assert variants("one line") == ["one line", ""]


@pytest.mark.parametrize(
    ("id", "arguments", "what"),
    [
        ("no:such", {}, "unknown instruction"), (None, {}, "unknown instruction"), ("punctuation:no_comma",
        [], "object"),
        ("keywords:existence", {"keywords": "a"}, "list of texts"), ("keywords:existence",
        {}, "takes keywords, not none"),
        ("keywords:frequency", {"keyword": "x" * 201, "frequency": 1, "relation": "at least"}, "200"),
        ("keywords:letter_frequency", {"letter": " ", "let_frequency": 1, "let_relation": "at least"}, "one character"),
        ("language:response_language", {"language": "zh"}, "zh-cn"), ("language:response_language",
        {"language": {}}, "one of"),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "a count"),
        ("length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 1, "nth_paragraph": 0, "first_word": "a"}, "from 1"),
    ],
)  # fmt: skip
def test_bad_instructions_do_not_build_and_are_errors_in_a_task(id: Any, arguments: Any, what: str) -> None:
    with pytest.raises(GraderError, match=what):
        instruction(id, arguments)
    assert what in (grade("x", instruction_id_list=[id], kwargs=[arguments]).error or "")
    with pytest.raises(GraderError):
        build_grader(make_skill({**GRADER, "instructions": [{"instruction_id": id, "kwargs": arguments}]}))


@pytest.mark.parametrize("bad", [{"strictness": "lax"}, {"score": "mean"}, {"instructions": {}}, {"instructions": [1]}])
def test_bad_options_do_not_build(bad: dict[str, Any]) -> None:
    with pytest.raises(GraderError):
        build_grader(make_skill({**GRADER, **bad}))


def test_reason_names_what_is_not_followed() -> None:
    rules = [{"id": "punctuation:no_comma"}, {"id": "startend:quotation"}]
    result = grade('"a, b"', {"instructions": rules, "score": "share", "pass_threshold": 0.5})
    assert (result.score, result.passed) == (0.5, True)
    assert result.reason == "1 of 2 hold; not punctuation:no_comma"


def test_the_language_is_the_same_each_time() -> None:
    text = "no de la que se"
    assert len({instruction("language:response_language", {"language": "es"}).holds(text) for _ in range(20)}) == 1


def test_quick_on_baits() -> None:
    everything = [{"instruction_id": one.id, "kwargs": {}} for one in ALL]
    assert everything
    for bait in SLOW:
        text = (bait * (65_536 // len(bait)))[:65_535] + "b"
        for one in ALL:
            start = time.monotonic()
            one.holds(text)
            assert time.monotonic() - start < 1, (one.id, bait)
    start = time.monotonic()
    assert grade("a" * 1_000_000, {"instructions": [{"id": "punctuation:no_comma"}]}).score == 0
    assert time.monotonic() - start < 1


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None)) | st.text("aA*-.!?\"'[]<>()#\n ,:", max_size=60))
def test_any_text_follows_or_not(text: str) -> None:
    for one in ALL:
        assert one.holds(text) in (True, False)
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@settings(max_examples=100, deadline=None)
@given(st.text('ab,\n*" ', max_size=30))
def test_loose_never_scores_below_strict(text: str) -> None:
    rules = [{"id": "punctuation:no_comma"}, {"id": "startend:quotation"}, {"id": "combination:two_responses"}]
    scores = [
        grade(text, {"instructions": rules, "score": "share", "strictness": how}).score for how in ("strict", "loose")
    ]
    assert scores[0] is not None and scores[1] is not None and 0 <= scores[0] <= scores[1] <= 1
