"""A teacher on loopback that answers by (messages, seed) and fails in the ways that servers fail; it logs each call."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: what a fault script may say of one try: None is an answer
FAULTS = ("500", "429", "hang", "broken", "half", "dropped", "empty")

Script = Callable[[str, int], str | None]


class Teacher(ThreadingHTTPServer):
    """``fault(call, attempt)`` scripts the tries of a call, which is its canonical body; ``delay_s`` slows answers.

    ``say(body)`` is the one answer to a body.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.models = ["m1"]
        self.fault: Script = lambda call, attempt: None
        self.say: Callable[[dict[str, Any]], str] = echo
        self.delay_s = 0.0
        self.calls: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.arrived = threading.Condition(self.lock)
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def wait_for(self, calls: int, timeout_s: float = 60.0) -> bool:
        """Whether that many calls have arrived in all."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.calls) >= calls, timeout_s)

    def handle_error(self, request: Any, client_address: Any) -> None: ...  # clients that were killed


class Handler(BaseHTTPRequestHandler):
    server: Teacher
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        models = [{"id": name, "object": "model"} for name in self.server.models]
        self.answer(200, json.dumps({"object": "list", "data": models}))

    def do_POST(self) -> None:
        server = self.server
        call = json.dumps(json.loads(self.rfile.read(int(self.headers["content-length"]))), sort_keys=True)
        with server.arrived:
            attempt = server.calls.count(call)
            server.calls.append(call)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
            server.arrived.notify_all()
        try:
            time.sleep(server.delay_s)
            fault = server.fault(call, attempt)
        finally:
            # Before the answer leaves: after it, the client may already have begun its next call.
            with server.lock:
                server.in_flight -= 1
        if fault:
            self.fail(fault)
        else:
            self.answer(200, json.dumps(completion(call, server.say)))

    def fail(self, fault: str) -> None:
        if fault == "500":
            self.answer(500, "<html>Internal Server Error</html>")
        elif fault == "429":
            self.answer(429, '{"error": {"message": "busy"}}', "1")
        elif fault == "400":
            self.answer(400, '{"error": {"message": "no such parameter"}}')
        elif fault == "broken":
            self.answer(200, '{"choices": [{"message": {"content": "half an ans')
        elif fault == "empty":
            self.answer(200, '{"error": {"message": "overloaded"}}')
        elif fault == "hang":
            self.server.ended.wait(60)
        elif fault == "half":
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
        else:
            assert fault == "dropped", fault
        if fault in ("hang", "half", "dropped"):
            self.close_connection = True

    def answer(self, status: int, text: str, retry_after: str = "") -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text.encode())))
        if retry_after:
            self.send_header("retry-after", retry_after)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: Any) -> None: ...


def echo(body: dict[str, Any]) -> str:
    """What was asked, and the seed."""
    return f"{body['messages'][-1]['content']} seed {body['seed']}"


def completion(call: str, say: Callable[[dict[str, Any]], str] = echo) -> dict[str, Any]:
    """The one answer to a call. A question that ends in 3 is cut by length."""
    body = json.loads(call)
    asked = body["messages"][-1]["content"]
    choice = {"index": 0, "finish_reason": "length" if asked.endswith("3") else "stop"}
    choice["message"] = {"role": "assistant", "content": say(body)}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "c", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}


def sometimes(faults: tuple[str, ...], share: float, seed: int) -> Script:
    """Each fault in ``share`` of the tries, whatever the order of arrival; a call's fifth try succeeds."""

    def fault(call: str, attempt: int) -> str | None:
        place = int(random.Random(f"{seed}/{attempt}/{call}").random() / share)
        return faults[place] if place < len(faults) and attempt < 4 else None

    return fault


@contextlib.contextmanager
def teaching(port: int = 0) -> Iterator[Teacher]:
    made = Teacher(port)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.ended.set()
        made.shutdown()
        made.server_close()
