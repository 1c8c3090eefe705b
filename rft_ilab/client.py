"""JSON over HTTP to servers that fail: few calls at a time, tried again, bounded in time and size.

A lost connection, silence, 408, 425, 429 and 5xx are tried again after exponential back-off with jitter (Brooker,
"Exponential Backoff and Jitter", AWS 2015); a ``Retry-After`` (RFC 9110, both forms; also ``retry-after-ms``) is
honoured. No redirect is followed.

Not covered: a bound over clients that run at the same time. (Several servers: :mod:`rft_ilab.policy.servers`.)
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx

TRY_AGAIN = (408, 425, 429)
CONNECT_S = 10.0
SHOWN_BODY = 2000
TOO_LONG = re.compile(
    r"context.{0,20}(length|size|window)|maximum.{0,20}(tokens|length)|too (long|large|many tokens)", re.I
)

T = TypeVar("T")
# Not the module's generator, which somebody may have seeded.
_JITTER = random.Random()


class RemoteError(Exception):
    """A call that failed for good. ``status`` is None if no answer came; ``body`` is the start of the answer.

    ``tries`` is how often the server was asked. ``passing``: another try, here after ``wait_s`` seconds or at another
    server, may succeed."""

    passing = False
    wait_s = 0.0

    def __init__(self, what: str, status: int | None = None, body: str = "", tries: int = 1) -> None:
        self.status, self.body, self.tries = status, body, tries
        super().__init__(what)

    @property
    def too_long(self) -> bool:
        """Whether the server says that it was sent more than it can read."""
        return self.status == 413 or (self.status in (400, 422) and bool(TOO_LONG.search(self.body)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long and how often a client asks; times in seconds.

    ``timeout_s`` is the longest silence, ``call_s`` the longest that one try may last, ``deadline_s`` all tries of a
    call together (None: no limit). A wait that the server asks for is cut at ``max_backoff_s``. ``retry_unreadable``:
    whether a 2xx that cannot be read is tried again, as a 503 is.
    """

    concurrency: int = 8
    retries: int = 4
    backoff_s: float = 0.5
    max_backoff_s: float = 20.0
    timeout_s: float = 120.0
    call_s: float | None = None
    deadline_s: float | None = 300.0
    max_answer_bytes: int = 8 << 20
    retry_unreadable: bool = False


class Pace:
    """Starts of calls, at least ``1 / rate`` seconds apart, also over batches in several threads."""

    def __init__(self, rate: float) -> None:
        self._step, self._next, self._lock = 1 / rate, 0.0, threading.Lock()

    async def turn(self) -> None:
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._step
        await asyncio.sleep(start - time.monotonic())


class Client:
    """At most ``patience.concurrency`` calls at a time; an asynchronous context manager. ``retries`` counts them."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.retries = 0

    async def __aenter__(self) -> Self:
        p = self.patience
        self._gate = asyncio.Semaphore(p.concurrency)
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(p.timeout_s, connect=min(CONNECT_S, p.timeout_s), pool=None),
            limits=httpx.Limits(max_connections=p.concurrency),
            verify=_tls(),
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def ask(
        self,
        url: str,
        body: Any | None,
        headers: Mapping[str, str],
        read: Callable[[str], T],
        pace: Pace | None = None,
    ) -> T:
        """What ``read`` makes of the answer; ``body`` is posted as JSON, None is a GET.

        ``read`` raises ValueError, with one line that says so, if the text is not an answer. Raises RemoteError.
        """
        # ASCII, so that half a character in a text cannot make the body impossible to send.
        data = None if body is None else json.dumps(body).encode("ascii")
        sent = dict(headers) if data is None else {**headers, "content-type": "application/json"}
        async with self._gate:
            try:
                async with asyncio.timeout(self.patience.deadline_s):
                    return await self._patiently(url, data, sent, read, pace)
            except TimeoutError as error:
                raise RemoteError(f"no answer within {self.patience.deadline_s:g} s") from error

    async def _patiently(
        self, url: str, data: bytes | None, headers: Mapping[str, str], read: Callable[[str], T], pace: Pace | None
    ) -> T:
        p = self.patience
        for attempt in range(p.retries + 1):
            wait = 0.0
            if pace:
                await pace.turn()
            try:
                async with asyncio.timeout(p.call_s):
                    status, text, wait = await self._call(url, data, headers)
            except (TimeoutError, httpx.TimeoutException) as error:
                limit = p.call_s if isinstance(error, TimeoutError) else p.timeout_s
                problem = RemoteError(f"no answer within {limit:g} s", tries=attempt + 1)
            except httpx.TransportError as error:
                problem = RemoteError(str(error) or type(error).__name__, tries=attempt + 1)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem = RemoteError(str(error) or type(error).__name__, tries=attempt + 1)
                if not (p.retry_unreadable and isinstance(error, httpx.DecodingError)):
                    raise problem from error
            else:
                if 200 <= status < 300:
                    try:
                        return read(text)
                    except ValueError as error:
                        problem = RemoteError(str(error), status, text[:SHOWN_BODY], attempt + 1)
                        if not p.retry_unreadable:
                            raise problem from error
                else:
                    problem = RemoteError(f"HTTP {status}{said(text)}", status, text[:SHOWN_BODY], attempt + 1)
                    if status not in TRY_AGAIN and status < 500:
                        raise problem
            if attempt < p.retries:
                self.retries += 1
                own = min(p.max_backoff_s, p.backoff_s * 2**attempt) * _JITTER.uniform(0.5, 1.0)
                await asyncio.sleep(max(min(wait, p.max_backoff_s), own))
        problem.passing, problem.wait_s = True, wait
        raise problem

    async def _call(self, url: str, data: bytes | None, headers: Mapping[str, str]) -> tuple[int, str, float]:
        """Status, text, and how many seconds the server asks to wait."""
        method = "GET" if data is None else "POST"
        async with self._http.stream(method, url, content=data, headers=dict(headers)) as answer:
            body = bytearray()
            async for piece in answer.aiter_bytes(65536):
                body += piece
                if len(body) > self.patience.max_answer_bytes:
                    raise RemoteError(f"the answer has more than {self.patience.max_answer_bytes >> 20} MB")
            return answer.status_code, body.decode("utf-8", "replace"), retry_after(answer.headers, time.time())


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """The seconds that a server asks to wait, 0 if it does not say so in a form that can be read.

    >>> retry_after({"retry-after": "7"}, 0.0), retry_after({"retry-after-ms": "250"}, 0.0)
    (7.0, 0.25)
    >>> retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=50.0)
    10.0
    """
    if re.fullmatch(r"\d{1,9}", exact := headers.get("retry-after-ms", "")):
        return int(exact) / 1000
    if re.fullmatch(r"\d{1,9}", asked := headers.get("retry-after", "")):
        return float(asked)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0


def plain_url(url: str) -> str:
    """The URL without a trailing slash.

    Raises ValueError, with the end of a sentence that begins with the URL, unless it is http(s) with a host and
    without a user or password, which would end up in logs.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise ValueError("is not usable")
    return url.rstrip("/")


def said(text: str, limit: int = 160) -> str:
    """`` ('what the server says')`` out of an error object, or nothing.

    >>> said('{"error": {"message": "busy"}}')
    " ('busy')"
    """
    try:
        error = json.loads(text)["error"]
        message = str(error if isinstance(error, str) else error["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return f" ({message if len(message) <= limit else message[: limit - 1] + '…'!r})"


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # 20 ms and more, so once
