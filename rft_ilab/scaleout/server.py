"""The grader server: OpenAI's grader routes and a batch route for rollouts at scale, on Starlette and uvicorn.

``POST /v1/fine_tuning/alpha/graders/validate`` and ``.../run``, ``POST /v1/rft/grade``, ``POST /test_program``
(:mod:`.program_route`), ``GET /healthz``.

It runs source that clients send, so it lets in few. Without a token only this machine may ask: the address must be
loopback, and so must the ``Host`` of every request, which keeps out web pages that rebind their name to 127.0.0.1;
a body must be declared as JSON, which a page cannot do for a foreign server unasked. With a token every request
must have it, but those to ``/test_program`` if ``open_program`` is set: Open-Instruct sends none.

What is quick (:func:`rft_ilab.scaleout.answers.is_quick`) is answered at once, since a thread would cost more than the
grading; the rest waits for a thread of its grader's (:mod:`rft_ilab.scaleout.lanes`), and the server answers meanwhile.

Not covered: TLS (put a proxy in front), quotas of single clients, and ending a grading whose client leaves while it
runs (one that still waits for its turn is dropped).
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import ipaddress
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rft_ilab.errors import RftError
from rft_ilab.scaleout import program_route
from rft_ilab.scaleout.answers import MAX_SAMPLES, BadRequest, Skills, grade, is_quick, lane_of, run, validate
from rft_ilab.scaleout.lanes import Gone, Lanes
from rft_ilab.skills.reading import parse_json

MAX_BODY_BYTES = 16 << 20
BODY_SECONDS = 60.0
AT_ONCE_BYTES = 64 << 10
PIECE_BYTES = 2 << 10
SWITCH_S = 0.001
THREADS = min(32, (os.cpu_count() or 1) + 14)  # most of them wait, for a sandbox or a judge
PREFIX = "/v1/fine_tuning/alpha/graders"

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]


def served_app(token: str | None, taxonomy: Path | None, open_program: bool = False) -> Starlette:
    """The application of a process that does nothing else: its event loop gets the interpreter back sooner."""
    sys.setswitchinterval(SWITCH_S)
    return make_app(token=token, taxonomy=taxonomy, open_program=open_program)


def make_app(*, token: str | None = None, taxonomy: Path | None = None, open_program: bool = False) -> Starlette:
    """The server as an ASGI application. Without a token it answers this machine only."""
    skills = Skills(taxonomy)
    answers: dict[str, Answer] = {
        f"{PREFIX}/validate": validate,
        f"{PREFIX}/run": run,
        "/v1/rft/grade": functools.partial(grade, skills=skills),
        program_route.PATH: functools.partial(program_route.score_program, skills=skills),
    }
    # What is posted is answered before Starlette looks for a route; these are for methods that are not allowed.
    routes = [Route(path, _health, methods=["POST"]) for path in answers]
    free = (program_route.PATH,) if open_program else ()
    return Starlette(
        routes=[*routes, Route("/healthz", _health)],
        middleware=[Middleware(Door, token=token, free=free), Middleware(Posts, answers=answers, skills=skills)],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


@functools.lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Door:
    """Lets a request in, or answers it with OpenAI's error object."""

    def __init__(self, app: ASGIApp, token: str | None, free: Sequence[str] = ()) -> None:
        self._app, self._wanted = app, None if token is None else f"Bearer {token}".encode()
        self._free = free  # paths that need no token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(reversed(scope["headers"]))  # of a header that comes twice the first counts
        if self._wanted is not None:
            given = headers.get(b"authorization", b"")
            if scope["path"] not in self._free and not hmac.compare_digest(given, self._wanted):
                return error_response(401, "missing or wrong bearer token", code="invalid_api_key")
        elif not is_loopback(_hostname(headers.get(b"host", b"").decode("latin-1"))):
            return error_response(403, "this server answers requests to localhost only", code="forbidden_host")
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if scope["method"] == "POST" and kind != b"application/json":
            return error_response(415, "the body must be sent as content-type: application/json")
        return None


class Posts:
    """Answers what is posted to a route of ``answers``; the rest is the application's."""

    def __init__(self, app: ASGIApp, answers: Mapping[str, Answer], skills: Skills) -> None:
        self._app, self._answers, self._skills = app, answers, skills
        self._turn = asyncio.Lock()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reading")
        # More threads that compute would only take the interpreter from each other, and from the event loop.
        self._computing = Lanes(2, 1)
        self._waiting = Lanes(THREADS, THREADS // 2)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if answer is None:
            return await self._app(scope, receive, send)
        data = await _body(scope, receive)
        response = await self._response(answer, data, receive) if isinstance(data, bytes) else data
        if response is not None:
            await response(scope, receive, send)

    async def _response(self, answer: Answer, data: bytes, receive: Receive) -> Response | None:
        """None if the client has left before it was its turn."""
        small = len(data) <= AT_ONCE_BYTES
        if small:
            body = _parsed(data)
        else:
            body = await asyncio.get_running_loop().run_in_executor(self._reader, _parsed, data)
        if isinstance(body, Response):
            return body
        quick = is_quick(body, self._skills)
        if quick and small:
            return await self._at_once(answer, body, len(data))
        lanes = self._computing if quick else self._waiting
        try:
            return await lanes.run(lane_of(body), functools.partial(_answered, answer, body), receive)
        except Gone:
            return None

    async def _at_once(self, answer: Answer, body: Mapping[str, Any], size: int) -> Response:
        """Answered in the event loop; a batch in pieces, between which others get their turn."""
        samples = body.get("samples")
        if size <= PIECE_BYTES or not isinstance(samples, list) or len(samples) > MAX_SAMPLES:
            return _answered(answer, body)
        length = max(1, len(samples) * PIECE_BYTES // size)
        parts = []
        for start in range(0, len(samples), length):
            async with self._turn:  # one piece a turn of the loop, whatever the number of batches
                try:
                    parts.append(answer({**body, "samples": samples[start : start + length]}))
                except BadRequest:
                    return _answered(answer, body)  # says what is wrong
                await asyncio.sleep(0)
        return _json({**parts[0], "results": [result for part in parts for result in part["results"]]})


def _parsed(data: bytes) -> Mapping[str, Any] | Response:
    try:
        body = parse_json(data.decode("utf-8"))
    except ValueError as error:
        return error_response(400, f"the body is not JSON: {error}")
    return body if isinstance(body, dict) else error_response(400, "the body must be a JSON object")


def _answered(answer: Answer, body: Mapping[str, Any]) -> Response:
    try:
        return _json(answer(body))
    except BadRequest as error:
        return error_response(400, str(error), param=error.param)
    except RftError as error:
        return error_response(500, str(error))


def error_response(
    status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Any = None
) -> Response:
    """OpenAI's error object."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return _json({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)


async def _body(scope: Scope, receive: Receive) -> bytes | Response | None:
    """The whole body, or what to answer if it is too large or too slow; None if the client leaves before it ends."""
    if int(dict(scope["headers"]).get(b"content-length", b"0")) > MAX_BODY_BYTES:
        return _too_large()
    pieces, size, more = [], 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                more = message.get("more_body", False)
                if size > MAX_BODY_BYTES:
                    return _too_large()
    except TimeoutError:
        return error_response(408, f"the body did not come within {BODY_SECONDS:g} s")
    return b"".join(pieces)


def _too_large() -> Response:
    return error_response(413, f"the body has more than {MAX_BODY_BYTES >> 20} MB")


async def _health(request: Request) -> Response:
    return _json({"status": "ok"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, error.detail, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return error_response(500, "internal error; the traceback is in the server's log")


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # ASCII: a grader that is echoed may hold half a character, which UTF-8 cannot.
    return Response(json.dumps(value), status, headers, media_type="application/json")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
