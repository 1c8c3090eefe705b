"""The built-in graders against what other projects say of the same answers (``tests/oracle/README.md``)."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks import latex, text_match
from rft_ilab.grading.checks.bounded import bounded
from rft_ilab.grading.checks.json_fields import JsonFieldsCheck
from rft_ilab.grading.checks.json_schema import JsonSchemaCheck
from rft_ilab.grading.checks.mathematics import MathCheck
from rft_ilab.grading.checks.number import NumberCheck
from rft_ilab.grading.checks.reasoning_gym import HANDLER
from rft_ilab.grading.checks.regex import RegexCheck
from rft_ilab.grading.checks.text_match import TextMatchCheck
from rft_ilab.grading.sample import Mark, Sample

ORACLE = Path(__file__).parents[1] / "oracle"
BASE: dict[str, Any] = {"input": "{{sample.output_text}}", "reference": "{{item.gold}}"}
INPUT = {"input": BASE["input"]}
Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    path = ORACLE / name
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


UNIT = rows("grader_unit_cases.jsonl")


def of(*kinds: str) -> Any:
    found = [row for row in UNIT if row["kind"] in kinds]
    return pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in found])


def mark(check: Any, row: Row) -> Mark:
    result: Mark = check.mark_one(Sample(row["prediction"], row))
    return result


def test_every_kind_of_row_has_a_test() -> None:
    assert Counter(row["kind"] for row in UNIT) == {
        "oi_puzzle": 29, "oi_string_f1": 13, "oi_gsm8k": 5, "oi_latex_normalise": 9, "oi_validate_choice": 4,
        "oi_validate_frequency_capital_words": 6, "evals_match": 1, "evals_includes": 5, "evals_json_match": 16,
        "evals_json_validator": 2, "evals_fuzzy_match": 3, "evals_normalise": 3, "evals_util_fuzzy": 9,
        "math_is_equiv": 16, "trl_think_format": 18, "trl_accuracy": 6,
    }  # fmt: skip


TEXT_OPTIONS: dict[str, dict[str, Any]] = {
    "oi_puzzle": {"rule": "squad", "score": "equal", "tags": True},
    "oi_string_f1": {"rule": "squad", "score": "f1", "tags": True},
    "evals_match": {"rule": "exact", "score": "prefix"},
    "evals_includes": {"score": "contains"},
}


@of(*TEXT_OPTIONS)
def test_text_match(row: Row) -> None:
    options = {**TEXT_OPTIONS[row["kind"]], "alternatives": isinstance(row["gold"], list)}
    options.setdefault("rule", "lower" if row.get("ignore_case") else "exact")
    assert mark(TextMatchCheck(**BASE, **options), row).score == row["expected"]


@of("evals_fuzzy_match")
def test_fuzzy_match_of_evals(row: Row) -> None:
    options = {"rule": "squad", "alternatives": isinstance(row["gold"], list)}
    assert mark(TextMatchCheck(**BASE, score="overlap", **options), row).score == row["expected"]["accuracy"]
    assert mark(TextMatchCheck(**BASE, score="f1", **options), row).score == row["expected"]["f1_score"]


@of("evals_util_fuzzy")
def test_fuzzy_function_of_evals(row: Row) -> None:
    found, wanted = (text_match.normalise(row[name], "squad") for name in ("prediction", "gold"))
    assert text_match.compare(found, wanted, "overlap") == row["expected"]
    result = mark(TextMatchCheck(**BASE, rule="squad", score="overlap"), row)
    # On purpose: here an empty reference is an error, whatever the answer.
    assert result.score == row["expected"] if wanted else result.error


@of("evals_normalise")
def test_normalise_of_evals(row: Row) -> None:
    assert text_match.normalise(row["input"], "squad") == row["expected"]


@of("oi_validate_choice")
def test_choice_of_open_instruct(row: Row) -> None:
    text, choices = row["args"]
    check = TextMatchCheck(**BASE, rule="exact", score="contains", alternatives=True)
    assert check.mark_one(Sample(text, {"gold": choices})).score == row["expected"]


@of("oi_validate_frequency_capital_words")
def test_capital_words_of_open_instruct(row: Row) -> None:
    text, count, relation = row["args"]
    around = max(round(count * 0.1), 1)
    bounds = {
        "at least": {"at_least": count},
        "at most": {"at_most": count},
        "around": {"at_least": count - around, "at_most": count + around},
    }[relation]
    assert RegexCheck(**INPUT, pattern=r"\b[A-Z]+\b", **bounds).mark_one(Sample(text, {})).score == row["expected"]


@of("oi_gsm8k")
def test_number(row: Row) -> None:
    assert mark(NumberCheck(**BASE), row).score == row["expected"]


@of("oi_latex_normalise")
def test_latex_normalise(row: Row) -> None:
    assert latex.normalise(row["input"]) == row["expected"]


@of("math_is_equiv")
def test_hendrycks(row: Row) -> None:
    assert mark(MathCheck(**BASE, rule="hendrycks"), row).score == row["expected"]


@of("trl_accuracy")
def test_math(row: Row) -> None:
    result = mark(MathCheck(**BASE), row)
    assert result.score == row["expected"] and (result.error is None) == (result.score is not None)


@of("trl_think_format")
def test_think_format(row: Row) -> None:
    check = RegexCheck(**INPUT, pattern="<think>.*</think>.*", reject="<think>.*<think>", flags="s")
    assert mark(check, row).score == row["expected"]


@of("evals_json_match")
def test_json_fields(row: Row) -> None:
    check = JsonFieldsCheck(**BASE, alternatives=isinstance(row["gold"], list))
    assert mark(check, row).score == row["expected"]["accuracy"]


@of("evals_json_validator")
def test_json_validator(row: Row) -> None:
    assert mark(JsonSchemaCheck(**INPUT, schema={}), row).score == row["expected"]


DRAFTS = {
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}


def schema_of(row: Row) -> dict[str, Any]:
    schema = row["schema"] if isinstance(row["schema"], dict) else {"allOf": [row["schema"]]}
    return {"$schema": DRAFTS[row["draft"]], **schema}


def test_json_schema_test_suite() -> None:
    """2,140 cases, and those of 86 that can be decided without the suite's server."""
    verdicts: Counter[tuple[bool, str]] = Counter()
    for row in rows("json_schema_cases.jsonl.gz"):
        try:
            result = JsonSchemaCheck(**INPUT, schema=schema_of(row)).mark_one(Sample(json.dumps(row["instance"]), {}))
            verdict = "same" if result.score == row["expected"] else f"other: {row['id']}"
        except GraderError as error:
            remote = "leads nowhere" in error.what or "unknown draft" in error.what
            verdict = "needs a server" if remote else f"does not build: {row['id']}: {error}"
        verdicts[row["remote"], verdict] += 1
    assert verdicts == {(False, "same"): 2140, (True, "same"): 14, (True, "needs a server"): 72}


def test_json_schema_agrees_with_the_library() -> None:
    from jsonschema import validators

    compared = 0
    for row in rows("json_schema_cases.jsonl.gz"):
        # The library searches with `re`, which has no \p{...}; re2 has.
        if row["remote"] or "\\p{" in json.dumps(row["schema"]).replace("\\\\", "\\"):
            continue
        schema = schema_of(row)
        library = validators.validator_for(schema)(schema).is_valid(row["instance"])
        ours = JsonSchemaCheck(**INPUT, schema=schema).mark_one(Sample(json.dumps(row["instance"]), {})).score
        assert ours == library, row["id"]
        compared += 1
    assert compared == 2135


@cache
def entries_of(dataset: str, seed: int, size: int) -> Callable[[int], str]:
    reasoning_gym = pytest.importorskip("reasoning_gym")
    made = reasoning_gym.create_dataset(dataset, seed=seed, size=size)
    return cache(lambda index: json.dumps(made[index]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_reasoning_gym() -> None:
    """1,653 scores of 94 data sets; 278 of them are scores of no answer at all."""
    pytest.importorskip("reasoning_gym")
    scorer, wrong = bounded(HANDLER), []
    for row in (found := rows("reasoning_gym_scores.jsonl.gz")):
        entry = entries_of(row["dataset"], row["seed"], row["size"])(row["index"])
        result = scorer.ask(dataset=row["dataset"], entry=entry, answer=row["prediction"])
        if result.score != row["expected"]:
            wrong.append((row["id"], row["expected"], result))
    assert not wrong and len(found) == 1653
