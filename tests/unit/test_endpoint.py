"""EndpointPolicy against a server on loopback that is sometimes busy and sometimes broken."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rft_ilab.errors import PolicyError
from rft_ilab.policy import endpoint
from rft_ilab.policy.endpoint import EndpointPolicy
from rft_ilab.types import Message, Prompt, Sampling

PROMPTS = [Prompt(task_id=f"t{i}", messages=(Message("user", f"say {i}"),)) for i in range(5)]


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.busy = 0
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.answer(200, {"object": "list", "data": [{"id": "m1", "object": "model", "created": 0, "owned_by": "x"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(body)
        if self.server.broken:
            return self.answer(400, {"error": {"message": "no such parameter"}})
        if self.server.busy:
            self.server.busy -= 1
            return self.answer(429, {"error": {"message": "busy"}})
        text = f"{body['messages'][-1]['content']} seed {body['seed']}"
        choice = {"index": 0, "finish_reason": "length" if "3" in text else "stop"}
        choice["message"] = {"role": "assistant", "content": text}
        self.answer(200, {"id": "c", "object": "chat.completion", "created": 0, "model": "m1", "choices": [choice]})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("retry-after-ms", "10")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()


def test_every_rollout_once_and_in_order_though_the_server_is_busy(server: Server) -> None:
    server.busy = 3
    policy = EndpointPolicy(server.url)
    assert policy.id == f"endpoint:{server.url}:m1"
    rollouts = list(policy.sample(PROMPTS, 2, Sampling(temperature=0.7, max_tokens=9, seed=4)))
    assert [(r.task_id, r.index) for r in rollouts] == [(f"t{i}", k) for i in range(5) for k in range(2)]
    assert len({r.completion for r in rollouts}) == 10
    assert {r.stop for r in rollouts if r.task_id == "t3"} == {"length"}
    answered = Counter(json.dumps(body, sort_keys=True) for body in server.requests)
    assert len(answered) == 10 and len(server.requests) == 13
    assert all(body["max_tokens"] == 9 and body["temperature"] == 0.7 for body in server.requests)


def test_a_refusal_is_one_line(server: Server) -> None:
    policy = EndpointPolicy(server.url, "m1")
    server.broken = True
    with pytest.raises(PolicyError, match="sampling failed") as caught:
        list(policy.sample(PROMPTS[:1], 1, Sampling()))
    assert server.url in str(caught.value)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    with pytest.raises(PolicyError, match="no model answers there"):
        EndpointPolicy("http://127.0.0.1:9/v1")
