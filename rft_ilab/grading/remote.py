"""JSON over HTTP for checks that ask somebody else: judges, embeddings, endpoint graders.

The client is that of ``client.py``: at most ``CONCURRENCY`` calls of a batch at a time, each tried again at most
``RETRIES`` times and ``DEADLINE_S`` in all. What cannot be had is an error of the sample, never a number; an answer of
the policy that is too long to be sent is wrong.

Not covered: several servers with failover, and a bound over batches that run at the same time.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from rft_ilab.client import Client, Pace, Patience, RemoteError, plain_url
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

T = TypeVar("T")


class Remote(Client):
    """The client of one batch, and the answers that are kept on disk. An asynchronous context manager."""

    def __init__(self) -> None:
        super().__init__(
            Patience(
                concurrency=CONCURRENCY,
                retries=RETRIES,
                backoff_s=BACKOFF_S,
                max_backoff_s=MAX_BACKOFF_S,
                timeout_s=TIMEOUT_S,
                deadline_s=DEADLINE_S,
                max_answer_bytes=MAX_ANSWER_BYTES,
            )
        )
        self._asked: dict[str, asyncio.Future[Any]] = {}

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
        return await self.ask(url, body, headers, _json, pace)


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
        return plain_url(url)
    except ValueError as error:
        raise GraderError(
            f"{key} {shown(url)} {error}", fix="write http(s)://host/path, without user and password"
        ) from error


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


def _json(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"the answer is not JSON: {error}") from error
