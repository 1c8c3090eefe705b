"""Endpoint graders: a number from 0 to 1 is a score, anything else an error, and no secret leaves by accident."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from rft_ilab.errors import GraderError
from rft_ilab.grading import remote
from rft_ilab.grading.engine import compile_check
from rft_ilab.grading.remote import MAX_OUTPUT
from rft_ilab.grading.sample import Mark, Sample
from tests.unit.loopback import failure, serving


class Service:
    """A grading service; ``answer`` makes the response from the body."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.first: list[Response] = []
        self.answer: Callable[[dict[str, Any]], str] = lambda body: '{"score": 0.5}'
        self.app = Starlette(routes=[Route("/grade", self.grade, methods=["POST"])])
        self.url = ""

    async def grade(self, request: Request) -> Response:
        self.times.append(time.monotonic())
        self.requests.append(json.loads(await request.body()))
        self.headers.append(dict(request.headers))
        return self.first.pop(0) if self.first else PlainTextResponse(self.answer(self.requests[-1]))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    made = Service()
    monkeypatch.setattr(remote, "BACKOFF_S", 0.001)
    with serving(made.app) as url:
        made.url = f"{url}/grade"
        yield made


def mark(service: Service, *texts: str, **keys: Any) -> list[Mark]:
    check = compile_check({"type": "endpoint", "name": "mine", "url": service.url, **keys})
    return check.mark([Sample(text, {"reference": "gold"}) for text in texts])


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"score": 0.5}', 0.5), ('{"score": 1}', 1.0), ('{"score": 0, "why": "bad"}', 0.0), ("0.25", 0.25),
        (" 1 ", 1.0), ("-0", 0.0),
    ],
)  # fmt: skip
def test_a_number_from_0_to_1_is_the_score(service: Service, answer: str, score: float) -> None:
    service.answer = lambda body: answer
    (made,) = mark(service, "x")
    assert (made.score, made.error) == (score, None) and type(made.score) is float


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ('{"score": 8}', "outside 0 to 1"), ('{"score": -0.1}', "outside 0 to 1"), ("1.0000001", "outside 0 to 1"),
        ('{"score": true}', "not a score"), ('{"score": "1"}', "not a score"), ('{"score": null}', "not a score"),
        ("{}", "not a score"), ("[1]", "not a score"), ("", "not JSON"), ("one", "not JSON"), ("NaN", "not JSON"),
        ('{"score": 1e999}', "not JSON"), ('{"score": 0, "score": 1}', "duplicate key"), ("true", "not a score"),
        ("9" * 400, "outside 0 to 1"), ("[" * 100_000, "not JSON"), ("\xff", "not JSON"),
    ],
)  # fmt: skip
def test_anything_else_is_an_error(service: Service, answer: str, error: str) -> None:
    service.answer = lambda body: answer
    (made,) = mark(service, "x")
    assert made.score is None and error in (made.error or "") and len(made.error or "") < 300


def test_what_the_service_is_sent(service: Service) -> None:
    mark(service, '{"a": 1}', "plain", "\ud800", '{"a": "\\ud800"}')
    sent = {body["sample"]["output_text"]: body for body in service.requests}
    sample = sent['{"a": 1}']["sample"]
    assert sample["output_json"] == {"a": 1} and sample["output_tools"] == []
    assert sample["choices"][0]["message"] == {"role": "assistant", "content": '{"a": 1}'}
    assert sent["plain"]["sample"]["output_json"] is None and sent["plain"]["item"] == {"reference": "gold"}
    assert len({body["trace_id"] for body in service.requests}) == 4
    assert sent['{"a": "\\ud800"}']["sample"]["output_json"] is None
    assert r"\ud800" in sent  # as text, not as half a character


def test_a_service_that_fails_is_asked_again_then_an_error(service: Service) -> None:
    service.first = [failure(500), failure(502), failure(429)]
    assert mark(service, "x")[0].score == 0.5 and len(service.requests) == 4
    service.first = [failure(500, "boom") for _ in range(9)]
    assert mark(service, "x")[0].error == "endpoint: HTTP 500 ('boom')"
    service.first = [failure(404, "gone")]
    assert mark(service, "x")[0].error == "endpoint: HTTP 404 ('gone')"
    assert len(service.requests) == 4 + 1 + remote.RETRIES + 1


def test_a_redirect_is_not_followed(service: Service) -> None:
    service.first = [RedirectResponse(service.url)]
    assert mark(service, "x")[0].error == "endpoint: HTTP 307" and len(service.requests) == 1


def test_an_endless_answer_is_cut(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_ANSWER_BYTES", 1 << 20)
    service.answer = lambda body: "1" * (2 << 20)
    assert "more than 1 MB" in (mark(service, "x")[0].error or "")


def test_an_answer_that_is_too_long_is_wrong(service: Service) -> None:
    (made,) = mark(service, "x" * (MAX_OUTPUT + 1))
    assert (made.score, made.error, service.requests) == (0.0, None, [])
    service.first = [failure(413, "payload too large")]
    assert mark(service, "x" * 1000)[0].score == 0.0


def test_the_rate_limit_holds_over_batches(service: Service) -> None:
    check = compile_check({"type": "endpoint", "url": service.url, "rate_limit": 50})
    samples = [Sample(str(n), {}) for n in range(6)]
    check.mark(samples)
    check.mark(samples)
    assert service.times[-1] - service.times[0] > 11 * 0.02 * 0.9
    assert all(b - a > 0.002 for a, b in zip(service.times, service.times[1:], strict=False))


def test_headers_and_which_variables_they_reach(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFT_ENDPOINT_KEY", "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not yours")
    mark(service, "x", headers={"Authorization": "Bearer ${RFT_ENDPOINT_KEY}", "X-A": "${AWS_SECRET_ACCESS_KEY}"})
    assert service.headers[0]["authorization"] == "Bearer s3cret"
    assert service.headers[0]["x-a"] == "${AWS_SECRET_ACCESS_KEY}"
    (made,) = mark(service, "x", headers={"X-A": "${RFT_ENDPOINT_MISSING}"})
    assert made.score is None and "RFT_ENDPOINT_MISSING is not set" in (made.error or "")
    monkeypatch.setenv("RFT_ENDPOINT_KEY", "a\nHost: evil")
    assert mark(service, "x", headers={"X-A": "${RFT_ENDPOINT_KEY}"})[0].error


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"url": "localhost/grade"}, "not usable"), ({"url": "file:///etc/passwd"}, "not usable"),
        ({"url": "http://a:b@host/"}, "not usable"), ({"url": "http://[::1"}, "url"),
        ({"headers": {"X": 1}}, "printable ASCII"), ({"headers": {"X": "a\r\nY: b"}}, "printable ASCII"),
        ({"headers": {"X Y": "a"}}, "printable ASCII"), ({"headers": {"": "a"}}, "printable ASCII"),
        ({"headers": {"Host": "x"}}, "cannot be set"), ({"headers": ["X"]}, "an object"),
        ({"rate_limit": 0}, "at least 1"), ({"rate_limit": 1.5}, "a whole number"), ({"timeout": 5}, "unknown key"),
    ],
)  # fmt: skip
def test_a_bad_endpoint_does_not_build(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(GraderError) as caught:
        compile_check({"type": "endpoint", "url": "http://localhost/grade", **keys})
    assert what in str(caught.value)
