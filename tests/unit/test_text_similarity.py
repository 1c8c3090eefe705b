"""Text similarity: the libraries' figures, bounded in time, and embeddings over HTTP."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.graders import TextSimilarityGrader
from openai.types.graders.text_similarity_grader_param import TextSimilarityGraderParam
from pydantic import TypeAdapter
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from rft_ilab.errors import GraderError
from rft_ilab.grading import remote
from rft_ilab.grading.checks import text_similarity
from rft_ilab.grading.checks.text_similarity import MAX_LENGTH, METRICS, NAMES, rouge_l
from rft_ilab.grading.engine import compile_check, is_score
from rft_ilab.grading.sample import Mark, Sample
from tests.unit.loopback import FakeOpenAI, failure, serving

CASES = Path(text_similarity.__file__).with_suffix(".cases.jsonl").read_text(encoding="utf-8").splitlines()
FOX = "The quick brown fox jumps over the lazy dog"


def grader(metric: str, **keys: Any) -> dict[str, Any]:
    texts = {"input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
    return {"type": "text_similarity", "name": "near", **texts, "evaluation_metric": metric, **keys}


def mark(metric: str, answer: str, reference: str, **keys: Any) -> Mark:
    (made,) = compile_check(grader(metric, **keys)).mark([Sample(answer, {"reference": reference})])
    return made


@pytest.mark.parametrize("case", [json.loads(case) for case in CASES], ids=lambda c: c["grader"]["evaluation_metric"])
def test_golden_cases(case: dict[str, Any]) -> None:
    (made,) = compile_check(case["grader"]).mark([Sample(case["sample"], case["item"])])
    assert (made.error is not None) == case.get("error", False), made
    assert made.score == case.get("score")


def test_every_metric_has_golden_cases() -> None:
    assert {json.loads(case)["grader"]["evaluation_metric"] for case in CASES} == set(METRICS)


@pytest.mark.parametrize("metric", METRICS)
def test_more_of_the_reference_scores_higher(metric: str) -> None:
    answers = ["nothing", "The quick brown fox jumps over a cat", "A quick brown fox jumps over the lazy dog", FOX]
    scores = [mark(metric, answer, FOX).score or 0.0 for answer in answers]
    assert scores == sorted(scores) and len(set(scores)) == 4


def test_rouge_l_is_that_of_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    draw, scorer = random.Random(0), RougeScorer(["rougeL"])
    for _ in range(100):
        a, b = (" ".join(draw.choices("abcde", k=draw.randint(1, 30))) for _ in range(2))
        assert rouge_l(a, b) == pytest.approx(scorer.score(b, a)["rougeL"].fmeasure, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_baits_are_quick_and_never_an_error(metric: str) -> None:
    mark(metric, FOX, FOX)  # loads the library
    references = ["a b " * 5000, "yyyyyyyyyyyyyyy " * 1250, FOX]
    baits = ["b c " * 5000, "y" * MAX_LENGTH, "sses ing " * 2200, "<>&&&" * 4000, "1.,1.," * 3333, "x" * 1_000_000]
    for reference in references:
        for bait in [*baits, reference[::-1], "\0", "\ud800", "\u200b"]:
            start = time.monotonic()
            made = mark(metric, bait, reference)
            assert is_score(made.score), made
            assert time.monotonic() - start < 1


@pytest.mark.parametrize("metric", METRICS)
@given(answer=st.text(max_size=200), reference=st.text(min_size=1, max_size=200))
@settings(max_examples=25, deadline=None)
def test_any_answer_has_a_score(metric: str, answer: str, reference: str) -> None:
    assert is_score(mark(metric, answer, f"{FOX} {reference}").score)


@pytest.mark.parametrize("metric", METRICS)
def test_too_long(metric: str) -> None:
    long = "a b " * (MAX_LENGTH // 4) + "c"
    assert (mark(metric, long, FOX).score, mark(metric, long, FOX).error) == (0.0, None)
    assert "more than 20000 characters" in (mark(metric, FOX, long).error or "")


def test_nothing_is_kept_in_memory() -> None:
    for metric in ("bleu", "gleu", "meteor"):
        mark(metric, FOX, FOX)
        assert Tokenizer13a.__call__.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"evaluation_metric": "rouge"}, "unknown evaluation_metric 'rouge'"),
        ({"evaluation_metric": "rouge_6"}, "unknown evaluation_metric"),
        ({"evaluation_metric": "bleu", "model": "x"}, "mean nothing to bleu"),
        ({"evaluation_metric": "bleu", "endpoint": "http://x/v1"}, "mean nothing to bleu"),
        ({"evaluation_metric": "cosine", "endpoint": "x"}, "not usable"),
        ({"evaluation_metric": 1}, "must be a text"),
        ({"input": "{{sample.output}}"}, "unknown name"),
    ],
)
def test_a_bad_grader_does_not_build(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(GraderError) as caught:
        compile_check({**grader("bleu"), **keys})
    assert what in str(caught.value)


@pytest.mark.parametrize("metric", NAMES)
def test_openai_takes_our_graders_and_we_take_theirs(metric: str) -> None:
    TypeAdapter(TextSimilarityGraderParam).validate_python(grader(metric))
    compile_check(json.loads(TextSimilarityGrader.model_validate(grader(metric)).model_dump_json(exclude_none=True)))


@pytest.fixture
def embeddings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeOpenAI]:
    fake = FakeOpenAI()
    vectors = {"north": [0.0, 2.0], "east": [3.0, 0.0], "south": [0.0, -1.0], "north-east": [1.0, 1.0]}
    fake.vector = lambda text: vectors.get(text, [0.0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(remote, "BACKOFF_S", 0.001)
    with serving(fake.app) as url:
        monkeypatch.setenv("RFT_JUDGE_ENDPOINT", f"{url}/v1")
        yield fake


@pytest.mark.parametrize(
    ("answer", "score"), [("north", 1.0), ("east", 0.0), ("south", 0.0), ("north-east", 0.707106781187), ("", 0.0)]
)
def test_cosine(embeddings: FakeOpenAI, answer: str, score: float) -> None:
    made = mark("cosine", answer, "north")
    assert (made.score, made.error) == (score, None)


def test_embeddings_are_kept(embeddings: FakeOpenAI) -> None:
    check = compile_check(grader("cosine", model="small"))
    samples = [Sample(text, {"reference": "north"}) for text in ("north", "east", "east", "south")]
    assert [m.score for m in check.mark(samples)] == [1.0, 0.0, 0.0, 0.0]
    assert sorted(body["input"] for body in embeddings.requests) == ["east", "north", "south"]
    check.mark(samples)
    assert len(embeddings.requests) == 3 and embeddings.requests[0]["model"] == "small"


def test_embeddings_that_cannot_be_had_are_errors(embeddings: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings.first = [failure(404, "no such model")]
    assert "no such model" in (mark("cosine", "north", "east").error or "")
    assert "embedding is empty" in (mark("cosine", "elsewhere", "north").error or "")
    embeddings.vector = lambda text: [1.0] * len(text)
    assert "embeddings of" in (mark("cosine", "abc", "abcd").error or "")
    embeddings.vector = lambda text: ["x"]
    assert "no embedding" in (mark("cosine", "new", "newer").error or "")
    monkeypatch.delenv("RFT_JUDGE_ENDPOINT")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert "no model server" in (mark("cosine", "north", "east").error or "")


def test_an_answer_beyond_the_embedding_model_is_wrong(embeddings: FakeOpenAI) -> None:
    assert mark("cosine", "east", "north").score == 0.0
    embeddings.first = [failure(400, "maximum context length is 512 tokens")]
    made = mark("cosine", "word " * 3000, "north")
    assert (made.score, made.error) == (0.0, None)
