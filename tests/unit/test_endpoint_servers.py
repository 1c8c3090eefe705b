"""Several servers of one model: balanced, one standing in for another, the same rollouts whichever answers."""

from __future__ import annotations

import contextlib
import functools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from rft_ilab.errors import PolicyError
from rft_ilab.policy import endpoint
from rft_ilab.policy.endpoint import EndpointPolicy
from rft_ilab.store import Cache
from rft_ilab.types import Message, Prompt, Rollout, Sampling
from tests.unit.teachers import Teacher, teaching

MANY = [Prompt(task_id=f"t{i}", messages=(Message("user", f"say {i}"),)) for i in range(40)]
WARM = Sampling(temperature=0.7, max_tokens=9, seed=4)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(endpoint, "BACKOFF_S", 0.02)
    monkeypatch.setattr(endpoint, "MAX_BACKOFF_S", 0.2)


@pytest.fixture
def two() -> Iterator[tuple[Teacher, Teacher]]:
    with teaching() as first, teaching() as second:
        yield first, second


def texts(rollouts: Iterator[Rollout]) -> list[tuple[str, int, str, str]]:
    return [(r.task_id, r.index, r.completion, r.stop) for r in rollouts]


@functools.cache
def alone(n: int = 2) -> list[tuple[str, int, str, str]]:
    """What one server that never fails says."""
    with teaching() as server:
        return texts(EndpointPolicy(server.url, "m1").sample(MANY, n, WARM))


def joined(*servers: Teacher) -> str:
    return ",".join(server.url for server in servers)


def test_servers_share_the_calls_and_say_the_same(two: tuple[Teacher, Teacher]) -> None:
    for server in two:
        server.delay_s = 0.01
    policy = EndpointPolicy(joined(*two), concurrency=4)
    assert texts(policy.sample(MANY, 2, WARM)) == alone()
    shares = [len(server.calls) for server in two]
    assert sum(shares) == 80 and min(shares) > 25
    assert policy.answered == {server.url: len(server.calls) for server in two}
    assert all(server.most_in_flight <= 8 for server in two) and sum(s.most_in_flight for s in two) > 4


def test_a_slow_server_gets_fewer_calls(two: tuple[Teacher, Teacher]) -> None:
    two[0].delay_s, two[1].delay_s = 0.2, 0.005
    policy = EndpointPolicy(joined(*two), concurrency=2)
    assert texts(policy.sample(MANY, 1, WARM)) == alone(1)
    assert len(two[0].calls) < len(two[1].calls) / 2


def test_the_order_of_the_urls_makes_no_other_policy(two: tuple[Teacher, Teacher], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite")
    first = EndpointPolicy(joined(*two), cache=cache)
    assert texts(first.sample(MANY, 1, WARM)) == alone(1)
    asked = sum(len(server.calls) for server in two)
    again = EndpointPolicy(f"{two[1].url}/, {two[0].url}", cache=cache)
    assert again.id == first.id and texts(again.sample(MANY, 1, WARM)) == alone(1)
    assert sum(len(server.calls) for server in two) == asked and again.usage.cached == len(MANY)


@pytest.mark.parametrize("fault", ["500", "429", "hang", "dropped", "broken"])
def test_a_server_that_fails_is_stood_in_for(two: tuple[Teacher, Teacher], fault: str) -> None:
    two[0].fault = lambda call, attempt: fault
    policy = EndpointPolicy(joined(*two), concurrency=4, timeout_s=0.5)
    assert texts(policy.sample(MANY, 2, WARM)) == alone()
    assert policy.answered == {two[0].url: 0, two[1].url: 80}
    assert len(two[0].calls) < 40, "a server that fails is left alone for a while"


def test_a_refusal_is_not_taken_to_the_next(two: tuple[Teacher, Teacher]) -> None:
    for server in two:
        server.fault = lambda call, attempt: "400"
    with pytest.raises(PolicyError, match="sampling failed: HTTP 400"):
        list(EndpointPolicy(joined(*two), "m1", concurrency=1).sample(MANY, 1, WARM))
    assert sum(len(server.calls) for server in two) <= 4


def test_servers_of_different_models_are_refused(two: tuple[Teacher, Teacher]) -> None:
    two[1].models = ["m2", "m1"]
    with pytest.raises(PolicyError, match=r"serves m[12], not m[12], unlike http") as caught:
        EndpointPolicy(joined(*two))
    assert "\n" not in str(caught.value)
    assert EndpointPolicy(joined(*two), "m1").model == "m1"  # both have it
    with pytest.raises(PolicyError, match=r"serves (m1|m2, m1), not m3"):
        EndpointPolicy(joined(*two), "m3")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_server_that_is_down_at_first_is_used_when_it_comes(two: tuple[Teacher, Teacher]) -> None:
    port = free_port()
    two[0].delay_s = 0.02
    policy = EndpointPolicy(f"{two[0].url},http://127.0.0.1:{port}/v1", concurrency=2)
    rollouts = policy.sample(MANY, 2, WARM)
    got = [next(rollouts) for _ in range(10)]
    assert policy.answered[f"http://127.0.0.1:{port}/v1"] == 0
    with teaching(port) as late:
        got += list(rollouts)
    assert texts(iter(got)) == alone() and len(late.calls) > 10


def test_what_comes_back_with_another_model_is_refused(two: tuple[Teacher, Teacher]) -> None:
    port = free_port()
    policy = EndpointPolicy(f"{two[0].url},http://127.0.0.1:{port}/v1", concurrency=2)
    with teaching(port) as other, pytest.raises(PolicyError, match=rf"{port}/v1: serves m9, not m1"):
        other.models = ["m9"]
        list(policy.sample(MANY, 2, WARM))
    assert not other.calls


def test_all_down_is_one_line_and_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "RETRIES", 2)
    ports = [free_port(), free_port()]
    urls = ",".join(f"http://127.0.0.1:{port}/v1" for port in ports)
    with pytest.raises(PolicyError, match=r"none of 2 servers answers: http.*; http"):
        EndpointPolicy(urls)
    cache = Cache(tmp_path / "c.sqlite")
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(teaching(port)) for port in ports]
        policy = EndpointPolicy(urls, "m1", cache=cache, concurrency=2)
        rollouts = policy.sample(MANY, 2, WARM)
        for _ in range(30):
            next(rollouts)
        kept = policy.usage.calls
        for server in servers:
            server.fault = lambda call, attempt: "dropped"
        with pytest.raises(PolicyError, match=r"sampling failed after 3 tries: .*start the same command") as caught:
            list(rollouts)
        assert "\n" not in str(caught.value) and all(str(port) in str(caught.value) for port in ports)
        for server in servers:
            server.fault = lambda call, attempt: None
        again = EndpointPolicy(urls, "m1", cache=cache, concurrency=2)
        assert texts(again.sample(MANY, 2, WARM)) == alone()
        assert again.usage.cached >= kept >= 30 and again.usage.cached + again.usage.calls == 80


PROGRAM = """
import sys, threading
from tests.unit.teachers import Teacher
server = Teacher(int(sys.argv[1]))
server.delay_s = 0.02
server.serve_forever()
"""


@contextlib.contextmanager
def process(port: int) -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen([sys.executable, "-c", PROGRAM, str(port)], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield made
    finally:
        made.kill()
        made.wait()


def test_kill_9_of_a_server_loses_nothing_and_its_successor_is_used(two: tuple[Teacher, Teacher]) -> None:
    """A real process, killed with calls in flight, and started again while sampling goes on."""
    port = free_port()
    two[0].delay_s = 0.05
    done: list[Rollout] = []
    with process(port) as victim:
        policy = EndpointPolicy(f"{two[0].url},http://127.0.0.1:{port}/v1", concurrency=4)
        thread = threading.Thread(target=lambda: done.extend(policy.sample(MANY, 5, WARM)))
        thread.start()
        assert two[0].wait_for(15)
        victim.send_signal(signal.SIGKILL)
        assert victim.wait(10) == -signal.SIGKILL
    time.sleep(0.2)  # what it had answered is read
    before = policy.answered[f"http://127.0.0.1:{port}/v1"]
    assert before > 0 and two[0].wait_for(60) and thread.is_alive()
    assert policy.answered[f"http://127.0.0.1:{port}/v1"] == before
    with process(port):
        thread.join(60)
    assert texts(iter(done)) == alone(5)
    assert policy.answered[f"http://127.0.0.1:{port}/v1"] > before + 10
    assert sum(policy.answered.values()) == 200 == policy.usage.calls and policy.usage.retries > 0


def test_the_option_takes_several() -> None:
    import click

    from rft_ilab.cli import options

    @click.command()
    @options.endpoint_option
    def command(endpoint: str | None) -> None:
        click.echo(repr(endpoint))

    for arguments, joined_up in [
        ([], None),
        (["--endpoint", "http://b/v1"], "http://b/v1"),
        (["--endpoint", "http://b/v1", "--endpoint", "http://a/v1"], "http://a/v1,http://b/v1"),
        (["--endpoint", "http://b/v1, http://a/v1,http://b/v1"], "http://a/v1,http://b/v1"),
    ]:
        assert CliRunner().invoke(command, arguments).output == f"{joined_up!r}\n"
