"""The grader server: the batch route, who is let in and who is not, and the command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner

from rft_ilab.scaleout import answers, server
from rft_ilab.scaleout.server import PREFIX, make_app
from tests.unit.loopback import EXACT, PYTHON, serving
from tests.unit.taxonomies import LABEL_GRADER, write_skill


@pytest.fixture(scope="module")
def taxonomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("server") / "taxonomy"
    write_skill(root)
    return root


@pytest.fixture(scope="module")
def url(taxonomy: Path) -> Iterator[str]:
    with serving(make_app(taxonomy=taxonomy)) as address:
        yield address


def post(url: str, path: str, body: Any, **keys: Any) -> httpx.Response:
    return httpx.post(url + path, json=body, timeout=30, **keys)


def test_the_batch_route_keeps_errors_apart(url: str) -> None:
    samples = [
        {"completion": "Paris", "item": {"reference": "Paris"}},
        {"completion": "Rome", "item": {"reference": "Paris"}},
        {"completion": "Rome"},
        {"completion": "\ud800", "item": {"reference": "Paris"}},
    ]
    body = json.dumps({"grader": EXACT, "samples": samples})
    answer = httpx.post(f"{url}/v1/rft/grade", content=body, headers={"content-type": "application/json"}).json()
    results = answer["results"]
    assert [(r["score"], r["passed"]) for r in results] == [(1.0, True), (0.0, False), (None, None), (0.0, False)]
    assert results[2]["error"] == "the task has no field item.reference" and results[0]["error"] is None
    assert set(results[0]) == {"score", "passed", "error", "reason"} and len(answer["grader_digest"]) == 64


def test_the_grader_of_a_skill(url: str) -> None:
    samples = [{"completion": text, "item": {"reference": "YES"}} for text in ("yes", "no", "perhaps")]
    answer = post(url, "/v1/rft/grade", {"skill": "area/skill", "samples": samples}).json()
    assert [r["score"] for r in answer["results"]] == [1.0, 0.0, 0.0]
    same = post(url, "/v1/rft/grade", {"grader": LABEL_GRADER, "samples": samples}).json()
    assert same["results"] == answer["results"]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"samples": []}, "either a grader or a skill"), ({"grader": EXACT, "skill": "a/b", "samples": []}, "either"),
        ({"grader": EXACT}, "samples must be"), ({"grader": EXACT, "samples": [1]}, "samples must be"),
        ({"grader": EXACT, "samples": [{}]}, "completion must be a text"), ({"grader": EXACT, "x": 1}, "unknown field"),
        ({"grader": EXACT, "samples": [{"completion": "", "item": []}]}, "item must be"),
        ({"skill": "no/such", "samples": []}, "no/such"), ({"skill": "../../etc", "samples": []}, "bad skill name"),
        ({"skill": 1, "samples": []}, "skill must be a text"), ([], "must be a JSON object"),
        ({"grader": EXACT, "samples": [{"completion": ""}] * 4097}, "more than 4096 samples"),
    ],
)  # fmt: skip
def test_bad_batches(url: str, body: Any, what: str) -> None:
    answer = post(url, "/v1/rft/grade", body)
    assert answer.status_code == 400 and what in answer.json()["error"]["message"]


def test_many_rollouts_in_one_request(url: str) -> None:
    samples = [{"completion": str(n), "item": {"reference": str(n % 2)}} for n in range(4000)]
    start = time.monotonic()
    results = post(url, "/v1/rft/grade", {"grader": EXACT, "samples": samples}).json()["results"]
    assert sum(r["score"] for r in results) == 2 and time.monotonic() - start < 5


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"grader": NaN}', b'{"grader": {}, "grader": {}}', b"\xff", b"[" * 100_000, b'"text"', b"null"],
)
def test_a_body_that_is_not_json_has_openais_error_object(url: str, data: bytes) -> None:
    answer = httpx.post(f"{url}{PREFIX}/run", content=data, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_routes_that_are_not_there(url: str) -> None:
    missing, wrong = httpx.get(f"{url}/v1/models"), httpx.get(f"{url}{PREFIX}/run")
    assert (missing.status_code, wrong.status_code) == (404, 405) and wrong.headers["allow"] == "POST"
    assert missing.json()["error"]["type"] == wrong.json()["error"]["type"] == "invalid_request_error"


def test_health(url: str) -> None:
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}


def test_a_body_that_is_too_large(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_BODY_BYTES", 1000)
    assert post(url, f"{PREFIX}/run", {"grader": EXACT, "model_sample": "x" * 1000}).status_code == 413

    def pieces() -> Iterator[bytes]:  # without a declared length
        yield from [b"x" * 600] * 2

    answer = httpx.post(f"{url}{PREFIX}/run", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 413 and "error" in answer.json()


def test_a_body_that_does_not_come(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_SECONDS", 0.2)
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        head = f"POST {PREFIX}/run HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        line.sendall(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert b" 408 " in line.recv(4096)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8790", "10.0.0.1", "", "127.0.0.1.evil.example", "[::"])
def test_without_a_token_only_this_machine_is_answered(url: str, host: str) -> None:
    answer = httpx.get(f"{url}/healthz", headers={"host": host})
    assert answer.status_code in (400, 403)  # uvicorn itself refuses a Host that is none
    for good in ("localhost:1", "127.0.0.1", "[::1]:8790"):
        assert httpx.get(f"{url}/healthz", headers={"host": good}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_a_web_page_cannot_post(url: str, kind: str) -> None:
    body = json.dumps({"grader": EXACT, "model_sample": "x"})
    answer = httpx.post(f"{url}{PREFIX}/run", content=body, headers={"content-type": kind} if kind else {})
    assert answer.status_code == 415 and "access-control-allow-origin" not in answer.headers
    preflight = httpx.options(
        f"{url}{PREFIX}/run", headers={"origin": "http://x", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 405


def test_with_a_token_every_request_needs_it() -> None:
    with serving(make_app(token="s3cret")) as url:
        body = {"grader": EXACT, "model_sample": "x", "item": {"reference": "x"}}
        wrong = [None, "", "s3cret", "Bearer", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer s\xe9cret"]
        for value in wrong:
            headers = {} if value is None else {"authorization": value.encode("latin-1")}
            for answer in (
                httpx.get(f"{url}/healthz", headers=headers),
                post(url, f"{PREFIX}/run", body, headers=headers),
                post(url, "/nowhere", body, headers=headers),
            ):
                assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        headers = {"authorization": "Bearer s3cret", "host": "graders.example"}
        assert post(url, f"{PREFIX}/run", body, headers=headers).json()["reward"] == 1.0
        with openai.OpenAI(base_url=f"{url}/v1", api_key="s3cret", max_retries=0) as client:
            asked = client.fine_tuning.alpha.graders.run(grader=EXACT, model_sample="x", item={"reference": "x"})
            assert asked.reward == 1.0
        stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="other", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.fine_tuning.alpha.graders.run(grader=EXACT, model_sample="x")


def test_a_bug_is_an_error_object_without_its_traceback(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(answers, "stranger", broken)
    answer = post(url, f"{PREFIX}/run", {"grader": EXACT, "model_sample": "x"})
    assert answer.status_code == 500 and answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text


def test_it_answers_while_it_grades(url: str) -> None:
    slow = {**PYTHON, "source": "import time\ndef grade(sample, item):\n    time.sleep(1.5)\n    return 1.0\n"}
    rewards: list[float] = []

    def ask() -> None:
        rewards.append(post(url, f"{PREFIX}/run", {"grader": slow, "model_sample": "x"}).json()["reward"])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    start = time.monotonic()
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert time.monotonic() - start < 1 and not rewards
    for thread in threads:
        thread.join()
    assert rewards == [1.0] * 3


COMMAND = """
import sys, types, click
from instructlab.configuration import get_default_config
from rft_ilab.cli.serve_graders import serve_graders
serve_graders(sys.argv[1:], obj=types.SimpleNamespace(config=get_default_config()), prog_name="serve-graders")
"""


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(answers.__file__).parents[2]), **environment},
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--host", "0.0.0.0"], "0.0.0.0 can be reached by others: name a token with --token-env"),
        (["--host", "::"], ":: can be reached by others"),
        (["--host", "example.com"], "example.com can be reached by others"),
        (["--token-env", "RFT_NO_SUCH_TOKEN"], "environment variable RFT_NO_SUCH_TOKEN is not set or empty"),
        (["--host", "0.0.0.0", "--token-env", "RFT_EMPTY"], "environment variable RFT_EMPTY is not set or empty"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rft_ilab.cli.serve_graders import serve_graders

    monkeypatch.setenv("RFT_EMPTY", "")
    result = CliRunner().invoke(serve_graders, [*arguments, "--taxonomy-path", "."])
    assert result.exit_code == 2 and result.output.startswith(f"Error: {line}") and result.output.count("\n") == 1


def test_a_port_that_is_taken() -> None:
    from rft_ilab.cli.serve_graders import serve_graders

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(serve_graders, ["--port", str(port), "--taxonomy-path", "."])
    assert result.exit_code == 2 and result.output.startswith(f"Error: cannot listen on 127.0.0.1:{port}: Address")


@pytest.mark.parametrize("there", [(), ("httptools",), ("httptools", "uvloop")])
def test_it_says_what_makes_it_slow(there: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    import uvicorn

    from rft_ilab.cli.serve_graders import QUICKER, serve_graders

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: n in there or None if n in QUICKER else find(n, *a))
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: sockets[0].close())
    result = CliRunner().invoke(serve_graders, ["--port", "0", "--taxonomy-path", "."])
    notes = [line for line in result.output.splitlines() if line.startswith("note: ")]
    missing = [name for name in QUICKER if name not in there]
    assert result.exit_code == 0 and len(notes) == bool(missing), result.output
    assert all(f"without {' and '.join(missing)} a request" in line for line in notes)


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c(taxonomy: Path) -> None:
    process = start("--port", "0", "--taxonomy-path", str(taxonomy), "--token-env", "MY_TOKEN", MY_TOKEN="t0ken")
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        found = re.fullmatch(r"graders at (http://127\.0\.0\.1:\d+) \(with a token\); stop with Ctrl-C\n", first)
        assert found, first + process.stderr.read()
        headers = {"authorization": "Bearer t0ken"}
        body = {"skill": "area/skill", "samples": [{"completion": "YES", "item": {"reference": "YES"}}]}
        assert post(found[1], "/v1/rft/grade", body, headers=headers).json()["results"][0]["score"] == 1.0
        assert httpx.get(f"{found[1]}/healthz").status_code == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
