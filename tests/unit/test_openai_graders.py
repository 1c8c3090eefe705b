"""OpenAI's grader routes, asked by OpenAI's own client over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.fine_tuning.alpha import GraderRunResponse

from rft_ilab.errors import SandboxError
from rft_ilab.grading import remote
from rft_ilab.scaleout.server import make_app
from tests.unit.loopback import EXACT, PYTHON, FakeOpenAI, failure, serving, verdict

JUDGE: dict[str, Any] = {
    "type": "score_model",
    "name": "judge",
    "model": "m",
    "input": [{"role": "user", "content": "{{sample.output_text}} {{item.reference}}"}],
}
MULTI: dict[str, Any] = {"type": "multi", "name": "both", "calculate_output": "0.5 * right + 0.5 * good"}
MULTI["graders"] = {"right": EXACT, "good": JUDGE}
ERRORS = {
    "formula_parse_error", "sample_parse_error", "truncated_observation_error", "unresponsive_reward_error",
    "invalid_variable_error", "other_error", "python_grader_server_error", "python_grader_server_error_type",
    "python_grader_runtime_error", "python_grader_runtime_error_details", "model_grader_server_error",
    "model_grader_server_error_details", "model_grader_refusal_error", "model_grader_parse_error",
}  # fmt: skip


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with serving(make_app()) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as made:
        yield made


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeOpenAI]:
    fake = FakeOpenAI()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(remote, "BACKOFF_S", 0.001)
    with serving(fake.app) as address:
        monkeypatch.setenv("RFT_JUDGE_ENDPOINT", f"{address}/v1")
        yield fake


def run(client: openai.OpenAI, grader: Any, sample: str, item: Any = None) -> dict[str, Any]:
    """The answer of a run, checked for OpenAI's shape: all fields there, no other, of the right types."""
    raw = client.fine_tuning.alpha.graders.with_raw_response.run(grader=grader, model_sample=sample, item=item or {})
    body: dict[str, Any] = json.loads(raw.content)
    parsed = GraderRunResponse.model_validate(body, strict=True)
    assert not parsed.model_extra and not parsed.metadata.model_extra and not parsed.metadata.errors.model_extra
    seen = raw.parse()
    assert (seen.reward, seen.sub_rewards) == (parsed.reward, parsed.sub_rewards)
    assert seen.api_model_grader_token_usage_per_model == parsed.api_model_grader_token_usage_per_model
    assert seen.metadata.errors.to_dict() == body["metadata"]["errors"]
    assert set(body["metadata"]["errors"]) == ERRORS
    assert set(body) == {"reward", "metadata", "sub_rewards", "model_grader_token_usage_per_model"}
    return body


def flags(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body["metadata"]["errors"].items() if value}


def test_openais_client_validates(client: openai.OpenAI) -> None:
    result = client.fine_tuning.alpha.graders.validate(grader=EXACT)  # type: ignore[arg-type]
    assert result.grader is not None and result.grader.to_dict() == EXACT
    for grader in (PYTHON, JUDGE, MULTI):
        assert client.fine_tuning.alpha.graders.validate(grader=grader).grader.to_dict() == grader  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("grader", "what"),
    [
        ({**EXACT, "operation": "is"}, "unknown operation"), ({**EXACT, "oops": 1}, "unknown key 'oops'"),
        ({"type": "exec"}, "unknown grader type"), ({**PYTHON, "source": "def grade("}, "does not load"),
        ({**MULTI, "calculate_output": "1 +"}, "formula"), ({**MULTI, "calculate_output": "x"}, "unknown name 'x'"),
        ({**MULTI, "graders": {"a": MULTI}}, "inside a multi"), ({**EXACT, "pass_threshold": 2}, "pass_threshold 2"),
        ([], "must be an object"), ({"type": "multi", "graders": [1], "calculate_output": "a"}, "name of its own"),
        ({"type": "ref", "name": "x"}, "unknown grader type 'ref'"),
    ],
)  # fmt: skip
def test_what_does_not_build_is_a_bad_request(client: openai.OpenAI, grader: Any, what: str) -> None:
    for ask in (client.fine_tuning.alpha.graders.validate, client.fine_tuning.alpha.graders.run):
        keys = {"model_sample": "x"} if ask.__name__ == "run" else {}
        with pytest.raises(openai.BadRequestError) as caught:
            ask(grader=grader, **keys)
        assert what in caught.value.message and caught.value.param == "grader"


@pytest.mark.parametrize(
    "grader",
    [
        {"type": "endpoint", "url": "http://169.254.169.254/"}, {**JUDGE, "endpoint": "http://10.0.0.1/v1"},
        {"type": "text_similarity", "input": "a", "reference": "b", "evaluation_metric": "cosine",
         "endpoint": "http://10.0.0.1/v1"},
        {**MULTI, "graders": {"a": {"type": "endpoint", "url": "http://169.254.169.254/"}}},
        {**MULTI, "graders": [{"name": "a", "type": "endpoint", "url": "http://169.254.169.254/"}]},
    ],
)  # fmt: skip
def test_a_stranger_names_no_address(client: openai.OpenAI, grader: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="may not name an address"):
        client.fine_tuning.alpha.graders.validate(grader=grader)


def test_a_run_of_one_grader(client: openai.OpenAI) -> None:
    body = run(client, {**EXACT, "pass_threshold": 0.5}, "Paris", {"reference": "Paris"})
    assert body["reward"] == 1.0 and not flags(body) and body["sub_rewards"] == {}
    assert body["metadata"]["name"] == "exact" and body["metadata"]["type"] == "string_check"
    assert body["metadata"]["token_usage"] is None and body["metadata"]["sampled_model_name"] is None
    assert 0 <= body["metadata"]["execution_time"] < 5 and body["model_grader_token_usage_per_model"] == {}
    assert run(client, EXACT, "Rome", {"reference": "Paris"})["reward"] == 0.0


def test_a_run_in_the_sandbox(client: openai.OpenAI) -> None:
    assert run(client, PYTHON, "abc", {"limit": 9})["reward"] == 1.0
    assert run(client, PYTHON, "abc", {"limit": 1})["reward"] == 0.25
    body = run(client, PYTHON, "abc", {})
    assert body["reward"] == 0.0 and body["metadata"]["errors"]["python_grader_runtime_error"] is True
    assert "KeyError" in body["metadata"]["errors"]["python_grader_runtime_error_details"]


def test_a_missing_field_is_an_invalid_variable(client: openai.OpenAI) -> None:
    body = run(client, EXACT, "Paris", {"other": 1})
    assert body["reward"] == 0.0 and flags(body) == {"invalid_variable_error": True}


def test_another_error(client: openai.OpenAI) -> None:
    number = {"type": "number", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
    assert flags(run(client, number, "1", {"reference": "none"})) == {"other_error": True}


def test_a_run_of_a_judge(client: openai.OpenAI, judge: FakeOpenAI) -> None:
    judge.says = lambda body: verdict(0.75)
    body = run(client, JUDGE, "a", {"reference": "gold"})
    assert body["reward"] == 0.75 and body["metadata"]["sampled_model_name"] == "m-served"
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "cached_tokens": 0}
    assert body["model_grader_token_usage_per_model"] == {"m-served": usage}
    assert body["metadata"]["token_usage"] == 10
    again = run(client, JUDGE, "a", {"reference": "gold"})
    assert again["reward"] == 0.75 and again["metadata"]["token_usage"] == 0 and len(judge.requests) == 1


def test_the_errors_of_a_judge(client: openai.OpenAI, judge: FakeOpenAI) -> None:
    judge.says = lambda body: "none"
    assert flags(run(client, JUDGE, "a", {"reference": "x"})) == {"model_grader_parse_error": True}
    judge.says = lambda body: verdict(7)
    assert flags(run(client, JUDGE, "a", {"reference": "x"})) == {"other_error": True}
    judge.message = {"refusal": "no"}
    assert flags(run(client, JUDGE, "a", {"reference": "x"})) == {"model_grader_refusal_error": True}
    judge.first = [failure(404, "gone")]
    found = flags(run(client, JUDGE, "a", {"reference": "x"}))
    assert found == {"model_grader_server_error": True, "model_grader_server_error_details": "HTTP 404 ('gone')"}


def test_a_run_of_a_multi(client: openai.OpenAI, judge: FakeOpenAI) -> None:
    judge.says = lambda body: verdict(0.5)
    body = run(client, MULTI, "gold", {"reference": "gold"})
    assert body["reward"] == 0.75 and body["sub_rewards"] == {"right": 1.0, "good": 0.5}
    assert body["metadata"]["scores"] == body["sub_rewards"] and body["metadata"]["type"] == "multi"
    as_list = {**MULTI, "graders": [{**EXACT, "name": "right"}, {**JUDGE, "name": "good"}]}
    assert run(client, as_list, "gold", {"reference": "gold"})["sub_rewards"] == body["sub_rewards"]


def test_an_error_in_a_multi(client: openai.OpenAI, judge: FakeOpenAI) -> None:
    judge.says = lambda body: "?"
    body = run(client, MULTI, "gold", {"reference": "gold"})
    assert (body["reward"], flags(body)) == (0.0, {"model_grader_parse_error": True})
    assert body["sub_rewards"] == {"right": 1.0, "good": 0.0}
    ratio = {"type": "multi", "name": "r", "graders": {"a": EXACT}, "calculate_output": "1 / a"}
    assert flags(run(client, ratio, "x", {"reference": "y"})) == {"formula_parse_error": True}


def test_a_sandbox_that_does_not_start(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**PYTHON, "name": "once"}
    client.fine_tuning.alpha.graders.validate(grader=config)  # type: ignore[arg-type]

    def broken(*arguments: Any) -> Any:
        raise SandboxError("no process could be started")

    monkeypatch.setattr("rft_ilab.grading.python.run_python", broken)
    body = run(client, config, "abc", {"limit": 9})
    assert body["reward"] == 0.0 and flags(body)["python_grader_server_error_type"] == "SandboxError"
    assert flags(body)["python_grader_server_error"] is True
