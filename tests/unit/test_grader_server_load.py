"""The grader server under clients that are many, slow, or dead: nobody else notices."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from rft_ilab.scaleout import server
from rft_ilab.scaleout.answers import QUICK, QUICK_FIELDS, Skills, is_quick
from rft_ilab.scaleout.server import make_app
from tests.unit.loopback import EXACT, PYTHON, serving
from tests.unit.taxonomies import write_skill
from tests.unit.test_grader_server import post, start

SLEEPS: dict[str, Any] = {"type": "python"}
SLEEPS["source"] = "import time\ndef grade(sample, item):\n    time.sleep(1.2)\n    return 1.0\n"
LEAVE_WITHOUT_A_WORD = struct.pack("ii", 1, 0)


def ask(url: str, grader: Any, *texts: str) -> list[float]:
    samples = [{"completion": text, "item": {"reference": "x", "limit": 2}} for text in texts]
    answer = post(url, "/v1/rft/grade", {"grader": grader, "samples": samples})
    return [result["score"] for result in answer.json()["results"]]


def test_a_slow_grader_keeps_nobody_waiting() -> None:
    """More clients ask for it than there are threads; another Python grader and a quick one are answered meanwhile."""
    with serving(make_app()) as url:
        ask(url, PYTHON, "x")  # a fork server is up
        slow: list[list[float]] = []
        clients = server.THREADS + 4
        threads = [threading.Thread(target=lambda: slow.append(ask(url, SLEEPS, "x"))) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        begun = time.monotonic()
        assert ask(url, EXACT, "x", "y") == [1.0, 0.0]
        assert ask(url, PYTHON, "x", "long") == [1.0, 0.25]
        assert time.monotonic() - begun < 1.2 and len(slow) < clients
        for thread in threads:
            thread.join(60)
        assert slow == [[1.0]] * clients


@pytest.mark.parametrize("sent", ["half a head", "half a body", "all of it"])
def test_clients_that_die_harm_no_other(sent: str) -> None:
    with serving(make_app()) as url:
        body = json.dumps({"grader": SLEEPS, "samples": [{"completion": "x"}]}).encode()
        head = b"POST /v1/rft/grade HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\n\r\n".encode()
        data = {"half a head": head[:40], "half a body": head + body[:-9], "all of it": head + body}[sent]
        host, port = url.removeprefix("http://").split(":")
        dying = []
        for _ in range(server.THREADS * 2):
            dying.append(socket.create_connection((host, int(port))))
            dying[-1].sendall(data)
        time.sleep(0.3)
        for connection in dying:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LEAVE_WITHOUT_A_WORD)
            connection.close()
        begun = time.monotonic()
        assert ask(url, EXACT, "x", "y") == [1.0, 0.0]
        # Of those who had sent all, what was begun ends; what still waited is dropped.
        assert ask(url, SLEEPS, "x") == [1.0]
        assert time.monotonic() - begun < 1.2 * 3


def test_a_batch_in_pieces_is_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [("x" if i % 3 else "y") + " " * (i % 2) for i in range(100)]
    monkeypatch.setattr(server, "PIECE_BYTES", 256)
    with serving(make_app()) as url:
        assert ask(url, EXACT, *texts) == [float(text == "x") for text in texts]
        assert ask(url, EXACT) == []
        samples: list[Any] = [{"completion": text} for text in texts]
        good = post(url, "/v1/rft/grade", {"grader": EXACT, "samples": samples}).json()
        assert len(good["results"]) == 100 and set(good) == {"results", "grader_digest"}
        assert {result["error"] for result in good["results"]} == {"the task has no field item.reference"}
        samples[77] = {"completion": 5}
        answer = post(url, "/v1/rft/grade", {"grader": EXACT, "samples": samples})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "completion"


def test_what_is_quick(tmp_path: Path) -> None:
    write_skill(tmp_path)
    skills = Skills(tmp_path)
    assert is_quick({"grader": EXACT}, skills) and not is_quick({"grader": PYTHON}, skills)
    assert not {"python", "score_model", "endpoint", "regex", "math", "code", "multi"} & set(QUICK)
    multiplied = {**EXACT, "input": "{{sample.output_text}}" * QUICK_FIELDS}
    assert not is_quick({"grader": multiplied}, skills)
    assert not is_quick({"skill": "area/skill"}, skills)  # it has to be read first
    assert skills("area/skill") is skills("area/skill")
    assert is_quick({"skill": "area/skill"}, skills)
    for odd in ({}, {"grader": []}, {"grader": {"type": ["label"]}}, {"skill": 1}):
        assert not is_quick(odd, skills)


@pytest.mark.parametrize("unit", ["[", "1½", "1,", "İ", "}"])
@pytest.mark.parametrize("kind", QUICK)
def test_the_worst_text_of_a_quick_grader_is_not_slow(kind: str, unit: str) -> None:
    """8 kB take milliseconds; a quadratic grader would take seconds."""
    from rft_ilab.scaleout.answers import grade

    options = {"string_check": {"operation": "ilike"}, "label": {"labels": ["a" * n for n in range(1, 200)]}}
    grader = {"type": kind, "input": EXACT["input"], "reference": EXACT["reference"], **options.get(kind, {})}
    text = (unit * 8192)[:8192]
    body = {"grader": grader, "samples": [{"completion": text, "item": {"reference": text}}]}
    begun = time.thread_time()
    grade(body, Skills(None))
    assert time.thread_time() - begun < 0.5


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again() -> None:
    process = start("--port", "0", "--taxonomy-path", ".", "--workers", "2")
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert found, first + process.stderr.read()
        url = found[0]
        assert ask(url, EXACT, "x") == [1.0]
        workers = children(process.pid)
        os.kill(workers[0], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(alive := [pid for pid in children(process.pid) if pid != workers[0]]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert set(alive) != set(workers)
        for _ in range(20):
            assert ask(url, EXACT, "x", "y") == [1.0, 0.0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")
    finally:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    """Workers of a server; what Python keeps for its semaphores is none."""
    found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in found if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()]
