"""The built-in verifiers: what does not build, hostile text, bounds and property tests."""

from __future__ import annotations

import datetime
import gc
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import GraderError, SandboxError
from rft_ilab.grading.checks import bounded as bounded_module
from rft_ilab.grading.checks import text_match
from rft_ilab.grading.checks.bounded import Bounded, bounded
from rft_ilab.grading.checks.date import MONTHS, DateCheck, read_date
from rft_ilab.grading.checks.json_fields import JsonFieldsCheck
from rft_ilab.grading.checks.json_schema import JsonSchemaCheck
from rft_ilab.grading.checks.label import LabelCheck
from rft_ilab.grading.checks.latex import last_boxed
from rft_ilab.grading.checks.latex import normalise as tidy
from rft_ilab.grading.checks.mathematics import MathCheck
from rft_ilab.grading.checks.number import NumberCheck
from rft_ilab.grading.checks.reasoning_gym import HANDLER, ReasoningGymCheck
from rft_ilab.grading.checks.regex import RegexCheck
from rft_ilab.grading.checks.set_f1 import SetF1Check, items
from rft_ilab.grading.checks.string_check import StringCheck
from rft_ilab.grading.engine import Each
from rft_ilab.grading.sample import Mark, Sample

BASE: dict[str, Any] = {"input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
INPUT: dict[str, Any] = {"input": "{{sample.output_text}}"}
PERSON = {"type": "object", "properties": {"name": {"pattern": "(a+)+$"}}, "unevaluatedProperties": False}
JSON = {"a": [1, "x"], "b": True}
DRAFT_3, DRAFT_4 = ({"$schema": f"http://json-schema.org/draft-0{number}/schema#"} for number in (3, 4))

CHECKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "string_check": (StringCheck(**BASE, operation="ilike"), {"reference": "xyz"}),
    "label": (LabelCheck(**BASE, labels=["A", "B"]), {"reference": "A"}),
    "number": (NumberCheck(**BASE, which="only"), {"reference": 7}),
    "number_first": (NumberCheck(**BASE, which="first", percent="ignore"), {"reference": 7}),
    "json_fields": (JsonFieldsCheck(**BASE, partial=True, alternatives=True), {"reference": [JSON]}),
    "json_schema": (JsonSchemaCheck(**INPUT, schema=PERSON), {}),
    "json_unique": (JsonSchemaCheck(**INPUT, schema={"uniqueItems": True, "unevaluatedItems": False}), {}),
    "date": (DateCheck(**BASE, order="dmy"), {"reference": "2024-01-05"}),
    "set_f1": (SetF1Check(**BASE), {"reference": ["red", "green"]}),
    "regex": (RegexCheck(**INPUT, pattern="(a*)*b(.*)(.*)=(.*)", reject="(x+x+)+y"), {}),
    "regex_count": (RegexCheck(**INPUT, pattern="a?", at_most=3), {}),
    "text_match": (text_match.TextMatchCheck(**BASE, score="f1", tags=True), {"reference": "red green"}),
    "hendrycks": (MathCheck(**BASE, rule="hendrycks"), {"reference": r"\frac{1}{2}"}),
}


def mark(check: Any, text: str, **item: Any) -> Mark:
    (result,) = Each(check).mark([Sample(text, item)])
    return result


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: MathCheck(**BASE, rule="sympy"), "unknown rule 'sympy'"),
        (lambda: RegexCheck(**INPUT, pattern="a(?=b)"), "no look-around, no back-reference"),
        (lambda: RegexCheck(**INPUT, pattern=r"(a)\1"), "no look-around, no back-reference"),
        (lambda: RegexCheck(**INPUT, pattern="(((a{1000}){1000}){1000})"), "pattern"),
        (lambda: RegexCheck(**INPUT, pattern="a" * 10_001), "longer than 10000"),
        (lambda: RegexCheck(**INPUT, pattern="\ud800"), "pattern"),
        (lambda: RegexCheck(**INPUT, pattern="a", flags="x"), "flags 'x'"),
        (lambda: RegexCheck(**INPUT, pattern="a", flags="ii"), "flags 'ii'"),
        (lambda: RegexCheck(**INPUT, pattern="a", reject="("), "missing"),
        (lambda: RegexCheck(**INPUT, pattern="a", full=True, at_least=1), "full does not go"),
        (lambda: RegexCheck(**INPUT, pattern="a", at_least=2, at_most=1), "at least 2 and at most 1"),
        (lambda: RegexCheck(**INPUT, pattern="a", at_least=-1), "at least"),
        (lambda: JsonSchemaCheck(**INPUT, schema={"type": "text"}), r"wrong at \$.type"),
        (lambda: JsonSchemaCheck(**INPUT, schema={"pattern": "(?=a)"}), "no look-around"),
        (lambda: JsonSchemaCheck(**INPUT, schema={"patternProperties": {"(?=a)": True}}), "no look-around"),
        (lambda: JsonSchemaCheck(**INPUT, schema={"items": {"$ref": "http://localhost/x"}}), "leads nowhere"),
        (lambda: JsonSchemaCheck(**INPUT, schema={"$ref": "file:///etc/passwd"}), "leads nowhere"),
        (lambda: JsonSchemaCheck(**INPUT, schema={"$ref": "#/$defs/x"}), "leads nowhere"),
        (lambda: JsonSchemaCheck(**INPUT, schema={"$schema": "http://example.com/"}), "unknown draft"),
        (lambda: JsonSchemaCheck(**INPUT, schema={"$schema": []}), "schema.* is not a text"),
        (lambda: JsonSchemaCheck(**INPUT, schema={**DRAFT_4, "$ref": {"a": 1}}), "ref .* is not a text"),
        (lambda: JsonSchemaCheck(**INPUT, schema={**DRAFT_3, "definitions": {"a": {"definitions": 1}}}), "no schema"),
        (lambda: DateCheck(**BASE, order="ymd"), "unknown order"),
        (lambda: NumberCheck(**BASE, which="best"), "unknown which"),
        (lambda: NumberCheck(**BASE, percent="x"), "unknown percent"),
        (lambda: text_match.TextMatchCheck(**BASE, rule="x"), "unknown rule"),
        (lambda: text_match.TextMatchCheck(**BASE, score="x"), "unknown score"),
    ],
)
def test_what_does_not_build(make: Any, what: str) -> None:
    with pytest.raises(GraderError, match=what):
        make()


@pytest.mark.parametrize(
    ("step", "answer", "score"),
    [(0.5, 10**400, 1.0), (0.01, 10**400 + 1, 0.0), (10**400, "0.5", 0.0), (0.5, "1.5", 1.0), (0.1, "1e300", 1.0)],
)
def test_a_multiple_of_what_no_float_can_hold(step: Any, answer: Any, score: float) -> None:
    assert mark(JsonSchemaCheck(**INPUT, schema={"multipleOf": step}), str(answer)).score == score
    assert mark(JsonSchemaCheck(**INPUT, schema={**DRAFT_3, "divisibleBy": step}), str(answer)).score == score


def test_a_type_that_draft_3_does_not_know_is_an_error() -> None:
    assert mark(JsonSchemaCheck(**INPUT, schema={**DRAFT_3, "type": "text"}), "1").error == (
        "the schema has the unknown type 'text'"
    )


BAITS = {
    "letters": "a" * 1_000_000,
    "letters and an end": "a" * 999_999 + "!",
    "spaces": " " * 1_000_000,
    "digits": "7" * 1_000_000,
    "thousands": "1,234," * 170_000,
    "brackets": "[" * 1_000_000,
    "objects": '{"a":' * 200_000,
    "array": "[" + "1," * 90_000 + "1]",
    "mixed array": json.dumps([1, "a", [], {}] * 12_000),
    "name": json.dumps({"name": "a" * 190_000 + "!"}),
    "properties": json.dumps({f"k{i}": i for i in range(15_000)}),
    "commas": "red,green;" * 100_000,
    "lines": "- red\n" * 160_000,
    "boxes": "\\boxed{" * 140_000,
    "fractions": "\\frac" * 200_000,
    "equals": "b" + "=" * 999_999,
    "tags": "<think></think>" * 66_000,
    "zero width": "\u200b" * 300_000,
    "halves": "\ud800" * 1_000_000,
    "combining": "e" + "\u0301" * 500_000,
    "nulls": "\0" * 1_000_000,
}


@pytest.mark.parametrize("bait", BAITS)
@pytest.mark.parametrize("name", CHECKS)
def test_a_megabyte_is_marked_quickly(name: str, bait: str) -> None:
    check, item = CHECKS[name]
    # The garbage of a session of thousands of tests is not looked through at the check's expense.
    gc.freeze()
    start = time.process_time()
    result = mark(check, BAITS[bait], **item)
    took = time.process_time() - start
    gc.unfreeze()
    assert took < 1
    assert result.error is None and result.score is not None and 0 <= result.score <= 1
    assert len(result.reason) < 2000
    result.reason.encode()


NUMBERS = st.from_regex(r"[-+$]?[0-9.,eE/%]{0,12} ?[0-9]*", fullmatch=True)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "name"]), inner, max_size=3),
    max_leaves=8,
).map(json.dumps)
DATES = st.from_regex(r"[0-9]{1,4}[-/. ](January|Jan\.?|sept|[0-9]{1,2})[-/., ]{1,2}[0-9]{1,4}", fullmatch=True)
LISTS = st.lists(st.sampled_from(["red", "Green", "'blue'", "- red", "1. green", ""])).map(",".join)
LATEX = st.lists(st.sampled_from(["\\frac", "{", "}", "1", "2", "\\boxed{", "\\sqrt", "/", "=", ".5", "\\text{ "]))
ANY = st.text(st.characters(codec=None)) | NUMBERS | JSONS | DATES | LISTS | LATEX.map("".join)


@settings(max_examples=200, deadline=None)
@given(ANY)
def test_any_text_is_right_or_wrong_and_never_an_error(text: str) -> None:
    for name, (check, item) in CHECKS.items():
        result = mark(check, text, **item)
        assert result.error is None and type(result.score) is float and 0 <= result.score <= 1, name


@settings(max_examples=40, deadline=None)
@given(LATEX.map("".join) | NUMBERS | st.text(max_size=30))
def test_math_never_fails_on_an_answer(text: str) -> None:
    result = mark(MathCheck(**BASE), text, reference="7")
    assert result.error is None and result.score in (0.0, 1.0)


@given(st.dates(min_value=datetime.date(1000, 1, 1)))
def test_every_day_is_read_in_every_form(day: datetime.date) -> None:
    month = MONTHS[day.month - 1]
    for text in (
        day.isoformat(), f"{day.day} {month} {day.year}", f"{month.title()} {day.day}, {day.year}",
        f"{day.strftime('%A')}, {day.day} {month[:3]} {day.year}", f"{day.year}/{day.month}/{day.day}",
    ):  # fmt: skip
        assert read_date(text) == day, text
    assert read_date(f"{day.day}/{day.month}/{day.year}", "dmy") == day
    assert read_date(f"{day.month}/{day.day}/{day.year}", "mdy") == day
    assert read_date(f"{day.day}/{day.month}/{day.year}") is None
    assert mark(DateCheck(**BASE), (day + datetime.timedelta(days=1)).isoformat(), reference=str(day)).score == 0 or (
        day == datetime.date.max
    )


@given(st.sets(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1), st.sets(st.sampled_from("abcdefgh")))
def test_set_f1_is_what_sets_say(wanted: set[str], found: set[str]) -> None:
    result = mark(SetF1Check(**BASE), json.dumps(sorted(found)), reference=sorted(wanted))
    assert result.score == pytest.approx(2 * len(wanted & found) / (len(wanted) + len(found)) if found else 0)
    assert items(", ".join(wanted)) == items(json.dumps(sorted(wanted))) == items("\n".join(wanted)) == wanted


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_hendrycks_rule_reads_fractions_alike(top: int, below: int) -> None:
    assert tidy(f"{top}/{below}") == tidy(rf"\tfrac{{{top}}}{{{below}}}") == rf"\frac{{{top}}}{{{below}}}"


def test_last_boxed() -> None:
    assert last_boxed(r"\boxed{1} \boxed{\frac{2}{3}}") == r"\frac{2}{3}"
    assert last_boxed(r"\boxed{1") is None and last_boxed("1") is None


MATH_BOMBS = [
    "9**9**9", r"$9^{9^{9}}$", "$9^9^9^9$", "$10^{10^{10}}$", "(" * 2000, "$" + "(" * 900 + "1" + ")" * 900 + "$",
    r"$\int_0^{10^9} e^{x^{x^x}} dx$", r"$\sum_{n=1}^{10^{12}} \frac{1}{n^n}$", "$" + "x+" * 1000 + "x$",
    r"$(x+y+z)^{500}$", "$100000000!$", r"$\begin{pmatrix}" + "1&" * 500 + r"1\end{pmatrix}$", "9" * 1_000_000,
    "__import__('os').system('echo')", "$x=" * 500, r"\boxed{" * 300 + "7" + "}" * 300,
]  # fmt: skip


@pytest.mark.parametrize("bomb", MATH_BOMBS, ids=range(len(MATH_BOMBS)))
def test_a_bomb_is_a_wrong_answer_within_its_time(bomb: str) -> None:
    check = MathCheck(**BASE)
    assert mark(check, "7", reference="7").score == 1  # the child runs
    start = time.monotonic()
    result = mark(check, bomb, reference="7")
    assert result.error is None and result.score in (0.0, 1.0)
    assert time.monotonic() - start < 20  # 0.8 s of processor time; the wall clock is the machine's
    assert mark(check, "7", reference="7").score == 1


def test_a_reference_that_takes_too_long_is_an_error() -> None:
    result = mark(MathCheck(**BASE), "7", reference="$9^{9^{9}}$")
    assert result.score is None and "the reference takes more than 0.8 s" in (result.error or "")


def test_math_works_in_threads() -> None:
    marks: list[float | None] = []
    check = MathCheck(**BASE)
    threads = [
        threading.Thread(target=lambda: marks.append(mark(check, r"\boxed{0.5}", reference="1/2").score))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert marks == [1.0] * 4


SLOW = """
import os, time
def prepare(): pass
def warm(job): pass
def reference(job): return None
def score(expected, job):
    match job["answer"]:
        case "sleep": time.sleep(60)
        case "die": os._exit(3)
        case "environment": return float(not os.environ.keys() - {"LC_CTYPE", *os.environ["KNOWN"].split()}), None, ""
        case "files":
            with open("x", "w") as file: file.write("x")
        case "memory": bytearray(4 << 30)
        case "print": print("score 1")
        case "long": return 0.5, "x" * 10**6, "y" * 10**6
    return 1.0, "answer", "right"
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    source = SLOW.replace('os.environ["KNOWN"]', repr("MPLCONFIGDIR OPENBLAS_NUM_THREADS PYTHONHASHSEED"))
    (tmp_path / "slow.py").write_text(source)
    child = Bounded(str(tmp_path / "slow.py"))
    yield child
    child.close()


def test_a_child_is_bounded_and_survives(slow: Bounded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    for answer in ("die", "files", "memory"):
        result = slow.ask(answer=answer)
        assert (result.score, result.error) == (0.0, None), answer
    assert slow.ask(answer="environment").score == 1
    assert slow.ask(answer="print").score == 1
    result = slow.ask(answer="long")
    assert result.score == 0.5 and len(result.answer or "") == 400 and len(result.reason) == 400
    process = slow._process
    assert process is not None
    process.kill()
    process.wait()
    assert slow.ask(answer="again").score == 1  # started anew


def test_a_child_that_sleeps_is_given_up(slow: Bounded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_module, "SAMPLE_SECONDS", 1.0)
    assert "no answer in time" in (slow.ask(answer="sleep").error or "")
    monkeypatch.undo()
    assert slow.ask(answer="x").score == 1


def test_a_handler_without_its_package_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def prepare(): import no_such_package")
    with pytest.raises(SandboxError, match="No module named 'no_such_package'"):
        Bounded(str(tmp_path / "broken.py")).ask(answer="x")


gym = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed"
)
CODE = [
    "__import__('os').mkdir({0!r})", "[__import__('os').mkdir({0!r})]", "open({0!r}, 'w')", "[open({0!r}, 'w')]",
    "S(\"open({0!r}, 'w')\")", "1 if __import__('os').mkdir({0!r}) else 2", "[[open({0!r}, 'w')]]",
    "().__class__.__base__.__subclasses__()", "exec(chr(95))", "lambda: 0", "[x for x in [open({0!r}, 'w')]]",
]  # fmt: skip


@gym
def test_reasoning_gym_refuses_an_unknown_data_set() -> None:
    with pytest.raises(GraderError, match=r"cannot be scored: .*no_such"):
        ReasoningGymCheck(input=INPUT["input"], dataset="no_such", entry="{{item.entry}}")


@gym
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_scorer_of_reasoning_gym_runs_an_answer(tmp_path: Path) -> None:
    """Some of the library's scorers evaluate the answer; a file that an answer makes would show it."""
    import reasoning_gym

    target = tmp_path / "made"
    scorer = bounded(HANDLER)
    for dataset in sorted(reasoning_gym.factory.DATASETS):
        if dataset == "composite":
            continue
        entry = json.dumps(reasoning_gym.create_dataset(dataset, seed=1, size=1)[0])
        for code in CODE:
            result = scorer.ask(dataset=dataset, entry=entry, answer=code.format(str(target)))
            assert not target.exists(), (dataset, code)
            # Any text is right there; see the module.
            assert result.error is None and (dataset == "game_of_life_halting" or (result.score or 0) < 0.5), dataset
    assert os.listdir(tmp_path) == []
