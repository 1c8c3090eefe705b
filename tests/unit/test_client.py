"""The client's patience: what is tried again, how long it waits, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from rft_ilab.client import Client, Patience, RemoteError, plain_url, retry_after
from tests.unit.loopback import failure, serving


class Service:
    """Gives ``first`` one by one, then the JSON text 1."""

    def __init__(self) -> None:
        self.first: list[Response] = []
        self.times: list[float] = []
        self.app = Starlette(routes=[Route("/", self.give, methods=["GET", "POST"])])
        self.url = ""

    async def give(self, request: Request) -> Response:
        self.times.append(time.monotonic())
        await request.body()
        return self.first.pop(0) if self.first else PlainTextResponse("1")


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    with serving(made.app) as url:
        made.url = f"{url}/"
        yield made


def ask(service: Service, **patience: Any) -> Any:
    async def once() -> Any:
        async with Client(Patience(**{"backoff_s": 0.001, **patience})) as client:
            return await client.ask(service.url, {"a": "\ud800"}, {}, json.loads)

    return asyncio.run(once())


def test_a_retry_after_is_waited_for_and_cut(service: Service) -> None:
    service.first = [failure(429, **{"retry-after": "1"})]
    assert ask(service) == 1 and service.times[1] - service.times[0] >= 0.99
    service.first = [failure(503, **{"retry-after": "3600"})]
    assert ask(service, max_backoff_s=0.2) == 1 and 0.19 < service.times[3] - service.times[2] < 10


def test_waits_grow(service: Service) -> None:
    service.first = [failure(500) for _ in range(4)]
    assert ask(service, backoff_s=0.05) == 1
    waits = [b - a for a, b in zip(service.times, service.times[1:], strict=False)]
    assert all(wait >= 0.05 * 2**k / 2 for k, wait in enumerate(waits)) and len(waits) == 4


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
def test_what_is_tried_again(service: Service, status: int) -> None:
    service.first = [failure(status)]
    assert ask(service) == 1 and len(service.times) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_what_is_not(service: Service, status: int) -> None:
    service.first = [failure(status, "no")]
    with pytest.raises(RemoteError, match=rf"HTTP {status} \('no'\)") as caught:
        ask(service)
    assert (caught.value.status, caught.value.tries, len(service.times)) == (status, 1, 1)


def test_a_redirect_is_refused(service: Service) -> None:
    service.first = [RedirectResponse("http://127.0.0.1:9/")]
    with pytest.raises(RemoteError, match="HTTP 307"):
        ask(service)


def test_an_answer_that_cannot_be_read_is_tried_again_where_asked_for(service: Service) -> None:
    service.first = [PlainTextResponse("{"), PlainTextResponse("x", headers={"content-encoding": "gzip"})]
    assert ask(service, retry_unreadable=True) == 1 and len(service.times) == 3
    service.first = [PlainTextResponse("{")]
    with pytest.raises(RemoteError, match="Expecting") as caught:
        ask(service)
    assert (caught.value.status, caught.value.body) == (200, "{")


def trickle(pieces: int, every_s: float) -> Response:
    """A body that comes in pieces: white space, and at last the answer."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            await asyncio.sleep(every_s)
            yield b" "
        yield b"2"

    return StreamingResponse(body())


def test_a_slow_server_that_lives_is_waited_for(service: Service) -> None:
    service.first = [trickle(10, 0.1)]
    assert ask(service, timeout_s=0.5, deadline_s=None) == 2 and len(service.times) == 1


def test_one_that_trickles_for_ever_is_not(service: Service) -> None:
    service.first = [trickle(1000, 0.05)]
    assert ask(service, timeout_s=0.5, call_s=0.4, deadline_s=None) == 1 and len(service.times) == 2


def test_the_deadline_holds_over_all_tries(service: Service) -> None:
    service.first = [failure(500) for _ in range(99)]
    with pytest.raises(RemoteError, match=r"no answer within 0\.3 s"):
        ask(service, retries=99, backoff_s=0.05, deadline_s=0.3)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0), ({"retry-after": "0"}, 0.0), ({"retry-after": "-5"}, 0.0), ({"retry-after": "1e9"}, 0.0),
        ({"retry-after": "soon"}, 0.0), ({"retry-after": "9" * 400}, 0.0), ({"retry-after": "120"}, 120.0),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5), ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 60.0),
        ({"retry-after": "Thu, 99 Jan 1970 00:02:00 GMT"}, 0.0),
    ],
)  # fmt: skip
def test_what_a_server_may_ask_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers, now=60.0) == seconds


@pytest.mark.parametrize("url", ["", "host", "ftp://h/", "http://", "http://u:p@h/", "http://[::1"])
def test_urls_of_no_use(url: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        plain_url(url)


def test_a_url_ends_without_a_slash() -> None:
    assert plain_url("https://h:8/v1/") == "https://h:8/v1"
