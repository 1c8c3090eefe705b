"""EndpointPolicy against a server on loopback that is busy, breaks, hangs and drops connections."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.errors import PolicyError
from rft_ilab.policy import endpoint
from rft_ilab.policy.endpoint import EndpointPolicy, read_completion
from rft_ilab.store import Cache
from rft_ilab.types import Message, Prompt, Rollout, Sampling
from tests.unit.teachers import FAULTS, Teacher, sometimes, teaching

PROMPTS = [Prompt(task_id=f"t{i}", messages=(Message("user", f"say {i}"),)) for i in range(5)]
MANY = [Prompt(task_id=f"t{i}", messages=(Message("user", f"say {i}"),)) for i in range(30)]
WARM = Sampling(temperature=0.7, max_tokens=9, seed=4)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Teacher]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(endpoint, "BACKOFF_S", 0.001)
    monkeypatch.setattr(endpoint, "MAX_BACKOFF_S", 0.05)  # the teacher asks to wait a second
    with teaching() as made:
        yield made


def expected(policy: EndpointPolicy, prompts: list[Prompt], n: int) -> list[Rollout]:
    return [
        Rollout(
            task_id=prompt.task_id,
            index=index,
            policy_id=policy.id,
            completion=f"{prompt.messages[-1].content} seed {policy._body(prompt, index, WARM)['seed']}",
            stop="length" if prompt.messages[-1].content.endswith("3") else "eos",
        )
        for prompt in prompts
        for index in range(n)
    ]


def test_every_rollout_once_and_in_order_though_the_server_is_busy(server: Teacher) -> None:
    busy = iter(["500", "429", "500"])
    server.fault = lambda call, attempt: next(busy, None)
    policy = EndpointPolicy(server.url)
    assert policy.id == f"endpoint:{server.url}:m1"
    rollouts = list(policy.sample(PROMPTS, 2, WARM))
    assert rollouts == expected(policy, PROMPTS, 2)
    assert {r.stop for r in rollouts if r.task_id == "t3"} == {"length"}
    assert len(set(server.calls)) == 10 and len(server.calls) == 13
    bodies = [json.loads(call) for call in server.calls]
    assert all(body["max_tokens"] == 9 and body["temperature"] == 0.7 and body["model"] == "m1" for body in bodies)


@pytest.mark.parametrize("faults", [*[(fault,) for fault in FAULTS], ("500", "429", "hang", "broken", "dropped")])
def test_faults_change_no_rollout(server: Teacher, faults: tuple[str, ...]) -> None:
    """Alone in a fifth of the tries, or all five so that every first try fails."""
    random_faults = sometimes(faults, 0.2, seed=1)
    server.fault = lambda call, attempt: random_faults(call, attempt) if attempt < 2 else None
    policy = EndpointPolicy(server.url, concurrency=8, timeout_s=0.5)
    assert list(policy.sample(MANY, 2, WARM)) == expected(policy, MANY, 2)
    assert len(set(server.calls)) == 60 < len(server.calls)
    assert policy.usage.calls == 60 and policy.usage.retries >= len(server.calls) - 60 > 0


def test_at_most_concurrency_calls_are_in_flight(server: Teacher) -> None:
    server.delay_s = 0.01
    policy = EndpointPolicy(server.url, concurrency=3)
    assert list(policy.sample(MANY, 2, WARM)) == expected(policy, MANY, 2)
    assert server.most_in_flight == 3


def test_a_refusal_is_one_line_and_stops_at_once(server: Teacher) -> None:
    policy = EndpointPolicy(server.url, "m1", concurrency=2)
    server.fault = lambda call, attempt: "400"
    with pytest.raises(PolicyError, match=r"sampling failed: HTTP 400 ..no such parameter") as caught:
        list(policy.sample(MANY, 1, Sampling()))
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.calls) <= 4


def test_after_a_failure_the_calls_in_flight_end_and_all_answers_are_kept(server: Teacher, tmp_path: Path) -> None:
    def fault(call: str, attempt: int) -> str | None:
        if "say 9" in call:
            return "500"
        time.sleep(0.05)  # still in flight when `say 9` has failed for good
        return None

    cache = Cache(tmp_path / "c.sqlite")
    server.fault = fault
    policy = EndpointPolicy(server.url, "m1", cache=cache, concurrency=4)
    with pytest.raises(PolicyError, match=r"sampling failed after 7 tries: HTTP 500.*start the same command again"):
        list(policy.sample(MANY, 1, WARM))
    before = Counter(server.calls)
    answered = {call for call in before if "say 9" not in call}
    assert 9 <= len(answered) < len(MANY) - 1 and policy.usage.calls == len(answered)
    server.fault = lambda call, attempt: None
    assert list(policy.sample(MANY, 1, WARM)) == expected(policy, MANY, 1)
    assert not answered & set(server.calls[before.total() :])
    assert policy.usage.cached == len(answered)


def test_a_server_that_hangs_is_given_up_after_the_retries(server: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "RETRIES", 2)
    server.fault = lambda call, attempt: "hang"
    with pytest.raises(PolicyError, match=r"sampling failed after 3 tries: no answer within 0.1 s"):
        list(EndpointPolicy(server.url, "m1", timeout_s=0.1).sample(PROMPTS[:1], 1, WARM))
    assert len(server.calls) == 3


def test_answers_in_the_cache_are_not_asked_again(server: Teacher, tmp_path: Path) -> None:
    policy = EndpointPolicy(server.url, "m1", cache=Cache(tmp_path / "c.sqlite"))
    first = list(policy.sample(PROMPTS, 2, WARM))
    again = EndpointPolicy(server.url, "m1", cache=Cache(tmp_path / "c.sqlite"))
    assert list(again.sample(PROMPTS, 3, WARM))[:2] == first[:2] and len(server.calls) == 15
    assert (again.usage.cached, again.usage.calls) == (10, 5)
    for other in (Sampling(temperature=0.8, max_tokens=9, seed=4), Sampling(temperature=0.7, max_tokens=8, seed=4)):
        list(again.sample(PROMPTS[:1], 1, other))
    list(EndpointPolicy(server.url, "m2", cache=Cache(tmp_path / "c.sqlite")).sample(PROMPTS[:1], 1, WARM))
    assert len(server.calls) == 18


def test_an_answer_is_in_the_cache_before_anything_else_happens_to_it(server: Teacher, tmp_path: Path) -> None:
    """Whoever looks from outside, while the first call hangs, sees the others kept."""
    server.fault = lambda call, attempt: "hang" if "say 0" in call else None
    policy = EndpointPolicy(server.url, "m1", cache=Cache(tmp_path / "c.sqlite"))
    thread = threading.Thread(target=lambda: list(policy.sample(PROMPTS, 1, WARM)), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while _entries(tmp_path / "c.sqlite") < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _entries(tmp_path / "c.sqlite") == 4 and thread.is_alive()
    server.fault = lambda call, attempt: None
    server.ended.set()
    thread.join(20)
    assert _entries(tmp_path / "c.sqlite") == 5


def _entries(path: Path) -> int:
    return int(sqlite3.connect(path).execute("SELECT count(*) FROM entries").fetchone()[0])


def test_one_policy_samples_in_several_threads(server: Teacher, tmp_path: Path) -> None:
    policy = EndpointPolicy(server.url, "m1", cache=Cache(tmp_path / "c.sqlite"), concurrency=4)
    got: dict[int, list[Rollout]] = {}

    def part(k: int) -> None:
        got[k] = list(policy.sample(MANY[k * 10 : k * 10 + 10], 2, WARM))

    threads = [threading.Thread(target=part, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [r for k in range(3) for r in got[k]] == expected(policy, MANY, 2)
    assert policy.usage.calls == 60 and policy.usage.prompt_tokens == 420


def test_it_counts_what_it_cost(server: Teacher) -> None:
    server.delay_s = 0.02
    server.fault = lambda call, attempt: "500" if "say 2" in call and attempt == 0 else None
    policy = EndpointPolicy(server.url, "m1")
    list(policy.sample(PROMPTS, 1, WARM))
    used = policy.usage
    assert (used.calls, used.retries, used.cached, used.prompt_tokens, used.completion_tokens) == (5, 1, 0, 35, 15)
    assert used.seconds >= 0.04


def test_every_prompt_and_rollout_has_a_seed_of_its_own(server: Teacher) -> None:
    list(EndpointPolicy(server.url, "m1").sample(MANY, 3, WARM))
    seeds = {json.loads(call)["seed"] for call in server.calls}
    assert len(seeds) == 90 and all(0 <= seed < 2**31 for seed in seeds)


def test_rollouts_come_window_by_window(server: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    """So no more than a window is held, and whoever stops reading pays for no more than a window."""
    monkeypatch.setattr(endpoint, "WINDOW", 2)
    rollouts = EndpointPolicy(server.url, "m1", concurrency=4).sample(MANY, 2, WARM)
    assert len(server.calls) == 0
    for read in range(1, 61):
        next(rollouts)
        assert len(server.calls) == min(60, 8 * ((read + 7) // 8))


def test_prompts_with_the_same_messages_are_asked_once(server: Teacher) -> None:
    twins = [Prompt(task_id=f"twin{i}", messages=PROMPTS[0].messages) for i in range(3)]
    rollouts = list(EndpointPolicy(server.url, "m1").sample(twins, 2, WARM))
    assert [(r.task_id, r.index) for r in rollouts] == [(f"twin{i}", k) for i in range(3) for k in range(2)]
    assert len({r.completion for r in rollouts}) == 2 == len(server.calls)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    with pytest.raises(PolicyError, match="no model answers there"):
        EndpointPolicy("http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"url": "localhost/v1"}, "is not usable"), ({"url": "http://me:pw@host/v1"}, "is not usable"),
        ({"url": "http://[::1"}, "is no URL"), ({"url": "http://h/v1", "concurrency": 0}, "above 0"),
        ({"url": "http://h/v1", "timeout_s": 0.0}, "above 0"),
    ],
)  # fmt: skip
def test_arguments_of_no_use(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(PolicyError, match=what):
        EndpointPolicy(**{"model": "m", **arguments})


def test_a_key_that_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1\nHost: evil")
    with pytest.raises(PolicyError, match="OPENAI_API_KEY") as caught:
        EndpointPolicy("http://h/v1", "m")
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("", "not JSON"), ("[" * 100_000, "not JSON"), ("null", "not a JSON object"), ("[]", "not a JSON object"),
        ("{}", "not a chat completion"), ('{"choices": []}', "not a chat completion"),
        ('{"choices": [{}]}', "not a chat completion"), ('{"choices": [{"message": null}]}', "not a chat completion"),
        ('{"choices": [{"message": {"content": 5}}]}', "not a text"),
        ('{"error": {"message": "overloaded"}}', "not a chat completion .'overloaded'."),
    ],
)  # fmt: skip
def test_what_is_no_chat_completion(body: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        read_completion(body)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("usage", ["null", "5", '{"prompt_tokens": "many"}', '{"prompt_tokens": -1}', "{}"])
def test_a_server_that_does_not_count_costs_no_tokens(usage: str) -> None:
    got = read_completion(f'{{"choices": [{{"message": {{"content": null}}}}], "usage": {usage}}}')
    assert (got.text, got.stop, got.prompt_tokens, got.completion_tokens) == ("", "eos", 0, 0)


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_every_text_that_is_read_can_be_written(text: str) -> None:
    got = read_completion(json.dumps({"choices": [{"message": {"content": text}}]})).text
    assert got.encode().decode() == got
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert got == text
