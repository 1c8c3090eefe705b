"""kill -9 while an endpoint is sampled: nothing is lost but the calls in flight, and the result is the same."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rft_ilab.policy.endpoint import EndpointPolicy
from rft_ilab.store import Cache
from rft_ilab.types import Message, Prompt, Sampling
from tests.unit.teachers import Teacher, sometimes, teaching

KILLS = 20
CONCURRENCY = 8
TASKS = 200
SAMPLES = 2
PROMPTS = [Prompt(task_id=f"t{i}", messages=(Message("user", f"say {i}"),)) for i in range(TASKS)]
SAMPLING = Sampling(temperature=0.7, max_tokens=9, seed=4)

PROGRAM = """
import sys
from pathlib import Path
from rft_ilab.policy import endpoint
from rft_ilab.store import Cache, write_atomic
from tests.unit import test_endpoint_kill as this

url, cache, out = sys.argv[1:]
endpoint.BACKOFF_S = 0.01
policy = endpoint.EndpointPolicy(url, "m1", cache=Cache(Path(cache)), concurrency=this.CONCURRENCY, timeout_s=2.0)
rollouts = policy.sample(this.PROMPTS, this.SAMPLES, this.SAMPLING)
write_atomic(Path(out), "".join(f"{r.task_id} {r.index} {r.stop} {r.completion}\\n" for r in rollouts))
"""


def start(server: Teacher, cache: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, str(cache), str(out)], cwd=Path(__file__).parents[2]
    )


@pytest.mark.slow
@pytest.mark.parametrize("faulty", [False, True], ids=["sound", "faulty"])
def test_twenty_kills_lose_only_the_calls_in_flight(tmp_path: Path, faulty: bool) -> None:
    rng = random.Random(faulty)
    cache, out = tmp_path / "calls.sqlite", tmp_path / "rollouts.txt"
    with teaching() as server:
        server.delay_s = 0.01
        if faulty:
            server.fault = sometimes(("500", "broken", "dropped", "half"), 0.05, seed=2)
        policy = EndpointPolicy(server.url, "m1", cache=Cache(cache), concurrency=CONCURRENCY)
        sent = {
            policy._call_key(prompt, index, SAMPLING): json.dumps(policy._body(prompt, index, SAMPLING), sort_keys=True)
            for prompt in PROMPTS
            for index in range(SAMPLES)
        }
        ends: list[int] = [0]
        kept: list[set[str]] = [set()]
        for _ in range(KILLS):
            process = start(server, cache, out)
            assert server.wait_for(len(server.calls) + rng.randint(1, 18))
            time.sleep(rng.uniform(0.0, 0.015))
            process.send_signal(signal.SIGKILL)
            assert process.wait(20) == -signal.SIGKILL and not out.exists()
            settle(server)
            ends.append(len(server.calls))
            kept.append({call for key, call in sent.items() if Cache(cache).get(key) is not None})
        assert start(server, cache, out).wait(120) == 0
        ends.append(len(server.calls))
        lives = [server.calls[a:b] for a, b in itertools.pairwise(ends)]

        asked_in: dict[str, int] = {}
        repeated = [0] * len(lives)
        for life, calls in enumerate(lives):
            for call in set(calls):
                if call in asked_in:
                    repeated[asked_in[call]] += 1
                asked_in[call] = life
        assert set(asked_in) == set(sent.values())
        assert not any(had & set(life) for had, life in zip(kept, lives, strict=True)), "an answer was paid for twice"
        assert max(repeated) <= CONCURRENCY, f"a kill cost more than the calls in flight: {repeated}"
        assert sum(repeated) > 0, "no kill hit a call in flight, so nothing was tested"

        server.fault = lambda call, attempt: None
        fresh = tmp_path / "fresh.txt"
        assert start(server, tmp_path / "fresh.sqlite", fresh).wait(120) == 0
        assert out.read_bytes() == fresh.read_bytes() and out.read_bytes().count(b"\n") == TASKS * SAMPLES

        # All of it is in the cache now: sampling once more costs nothing.
        before = len(server.calls)
        assert len(list(policy.sample(PROMPTS, SAMPLES, SAMPLING))) == policy.usage.cached == TASKS * SAMPLES
        assert len(server.calls) == before


def settle(server: Teacher) -> None:
    """Until the requests that the dead left in the sockets have been read."""
    seen = -1
    while seen != len(server.calls) or server.in_flight:
        seen = len(server.calls)
        time.sleep(0.05)
