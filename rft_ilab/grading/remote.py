"""JSON over HTTP for checks that ask somebody else: judges, embeddings, endpoint graders.

At most ``CONCURRENCY`` calls of a batch run at a time. A lost connection, 408, 425, 429 and 5xx are tried again with
exponential back-off and jitter (a ``Retry-After`` is honoured), at most ``RETRIES`` times and ``DEADLINE_S`` in all.
No redirect is followed, and no more than ``MAX_ANSWER_BYTES`` of an answer are read. What cannot be had is an error
of the sample, never a number; an answer of the policy that is too long to be sent is wrong.

Not covered: several servers with failover, and a bound over batches that run at the same time.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx

from rft_ilab.errors import GraderError
from rft_ilab.grading.engine import FAILURES
from rft_ilab.grading.sample import Mark, Sample, Unanswered, ascii_safe, shown
from rft_ilab.skills.reading import parse_json
from rft_ilab.store import Cache, user_directory

CONCURRENCY = 8
RETRIES = 4
BACKOFF_S = 0.5
MAX_BACKOFF_S = 20.0
TIMEOUT_S = 120.0
DEADLINE_S = 300.0
MAX_ANSWER_BYTES = 8 << 20
MAX_OUTPUT = 1 << 16
TRY_AGAIN = (408, 425, 429)
TOO_LONG = re.compile(
    r"context.{0,20}(length|size|window)|maximum.{0,20}(tokens|length)|too (long|large|many tokens)", re.I
)

T = TypeVar("T")


class RemoteError(Exception):
    """A call that failed for good. ``status`` is None if no answer came; ``body`` is the start of the answer."""

    def __init__(self, what: str, status: int | None = None, body: str = "") -> None:
        self.status, self.body = status, body
        super().__init__(what)

    @property
    def too_long(self) -> bool:
        """Whether the server says that it was sent more than it can read."""
        return self.status == 413 or (self.status in (400, 422) and bool(TOO_LONG.search(self.body)))


class Pace:
    """Starts of calls, at least ``1 / rate`` seconds apart, also over batches in several threads."""

    def __init__(self, rate: float) -> None:
        self._step, self._next, self._lock = 1 / rate, 0.0, threading.Lock()

    async def turn(self) -> None:
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._step
        await asyncio.sleep(start - time.monotonic())


class Remote:
    """The client of one batch, and the answers that are kept on disk. An asynchronous context manager."""

    async def __aenter__(self) -> Self:
        self._gate = asyncio.Semaphore(CONCURRENCY)
        self._asked: dict[str, asyncio.Future[Any]] = {}
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT_S, connect=10), verify=_tls())
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.aclose()

    @functools.cached_property
    def _cache(self) -> Cache:
        return Cache(user_directory("cache") / "judges.sqlite")

    def kept(self, key: str) -> Any | None:
        """What :meth:`keep` was given for this key, in this process or an earlier one."""
        return self._cache.get(key)

    def keep(self, key: str, answer: Any) -> None:
        self._cache.put([(key, answer)])

    async def once(self, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` returns; a question that stands twice in a batch is asked once."""
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(ask())
        answer: T = await self._asked[key]
        return answer

    async def post(self, url: str, body: Any, headers: Mapping[str, str], pace: Pace | None = None) -> Any:
        """The JSON value that comes back. Raises RemoteError."""
        # ASCII, so that half a character in a text cannot make the body impossible to send.
        data = json.dumps(body).encode("ascii")
        async with self._gate:
            try:
                async with asyncio.timeout(DEADLINE_S):
                    text = await self._patiently(url, data, {**headers, "content-type": "application/json"}, pace)
            except TimeoutError as error:
                raise RemoteError(f"no answer within {DEADLINE_S:g} s") from error
        try:
            return parse_json(text)
        except ValueError as error:
            raise RemoteError(f"the answer is not JSON: {error}", 200, text[:2000]) from error

    async def _patiently(self, url: str, data: bytes, headers: Mapping[str, str], pace: Pace | None) -> str:
        for attempt in range(RETRIES + 1):
            wait = 0.0
            if pace:
                await pace.turn()
            try:
                status, text, wait = await self._call(url, data, headers)
            except httpx.TransportError as error:
                problem = RemoteError(str(error) or type(error).__name__)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise RemoteError(str(error) or type(error).__name__) from error
            else:
                if 200 <= status < 300:
                    return text
                problem = RemoteError(f"HTTP {status}{_message(text)}", status, text[:2000])
                if status not in TRY_AGAIN and status < 500:
                    raise problem
            if attempt < RETRIES:
                await asyncio.sleep(max(wait, min(MAX_BACKOFF_S, BACKOFF_S * 2**attempt) * random.uniform(0.5, 1.0)))
        raise problem

    async def _call(self, url: str, data: bytes, headers: Mapping[str, str]) -> tuple[int, str, float]:
        async with self._client.stream("POST", url, content=data, headers=dict(headers)) as answer:
            body = bytearray()
            async for piece in answer.aiter_bytes(65536):
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise RemoteError(f"the answer has more than {MAX_ANSWER_BYTES >> 20} MB")
            asked = answer.headers.get("retry-after", "")
            wait = min(float(asked), MAX_BACKOFF_S) if re.fullmatch(r"\d{1,9}", asked) else 0.0
            return answer.status_code, body.decode("utf-8", "replace"), wait


def mark_all(samples: Sequence[Sample], mark_one: Callable[[Remote, Sample], Awaitable[Mark]]) -> list[Mark]:
    """Marks of all samples, in order; what ``mark_one`` raises is an error or a wrong answer of its sample."""

    async def guarded(remote: Remote, sample: Sample) -> Mark:
        if len(sample.text) > MAX_OUTPUT:
            return Mark(0.0, None, f"an answer of more than {MAX_OUTPUT} characters is not sent to be judged")
        try:
            return await mark_one(remote, sample)
        except Unanswered as error:
            return Mark(0.0, None, str(error))
        except RemoteError as error:
            return Mark.failed(str(error))
        except GraderError as error:
            return Mark.failed(error.what)
        except FAILURES as error:
            return Mark.failed(f"{type(error).__name__}: {error}")

    async def everything() -> list[Mark]:
        async with Remote() as remote:
            return list(await asyncio.gather(*(guarded(remote, sample) for sample in samples)))

    return asyncio.run(everything())


def sendable(sample: Sample) -> Sample:
    """The sample without what servers trip over: halves of characters are escaped, NUL becomes U+FFFD."""
    return Sample(ascii_safe(sample.text).replace("\0", "\ufffd"), sample.item)


def check_url(url: str, key: str) -> str:
    """The URL without a trailing slash. Raises GraderError unless it is http(s) with a host and no password."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise GraderError(f"{key} {shown(url)} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise GraderError(
            f"{key} {shown(url)} is not usable", fix="write http(s)://host/path, without user and password"
        )
    return url.rstrip("/")


def model_server(endpoint: str | None) -> tuple[str, dict[str, str]]:
    """Base URL and headers of the server of judges and embeddings. Raises RemoteError if there is none.

    The key goes only to the server that the environment names, not to one that a grader names.
    """
    named = os.environ.get("RFT_JUDGE_ENDPOINT") or os.environ.get("OPENAI_BASE_URL")
    try:
        named = check_url(named, "the endpoint in the environment") if named else None
    except GraderError as error:
        raise RemoteError(error.what) from error
    url = endpoint or named
    if url is None:
        raise RemoteError("no model server: set RFT_JUDGE_ENDPOINT, or write an endpoint into the grader")
    key = os.environ.get("RFT_JUDGE_API_KEY") or os.environ.get("OPENAI_API_KEY")
    return url, {"authorization": f"Bearer {key}"} if key and url == named else {}


def _message(text: str) -> str:
    """`` ('what the server says')`` out of an error object, or nothing."""
    try:
        error = json.loads(text)["error"]
        message = error if isinstance(error, str) else error["message"]
        return f" ({shown(str(message), 160)})"
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # 20 ms and more, so once
