"""The grader server: OpenAI's grader routes and a batch route for rollouts at scale, on Starlette and uvicorn.

``POST /v1/fine_tuning/alpha/graders/validate`` and ``.../run``, ``POST /v1/rft/grade``, ``POST /test_program``
(:mod:`.program_route`), ``GET /healthz``.

It runs source that clients send, so it lets in few. Without a token only this machine may ask: the address must be
loopback, and so must the ``Host`` of every request, which keeps out web pages that rebind their name to 127.0.0.1;
a body must be declared as JSON, which a page cannot do for a foreign server unasked. With a token every request
must have it, but those to ``/test_program`` if ``open_program`` is set: Open-Instruct sends none. Grading runs in
threads, so the server answers meanwhile.

Not covered: TLS (put a proxy in front), quotas of single clients, and a request that is given up by its client
(its grading still runs to its end).
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rft_ilab.errors import RftError
from rft_ilab.scaleout import program_route
from rft_ilab.scaleout.answers import BadRequest, grade, run, skills_of, validate
from rft_ilab.skills.reading import parse_json

MAX_BODY_BYTES = 16 << 20
BODY_SECONDS = 60.0
THREADS = min(32, (os.cpu_count() or 1) + 8)  # most of them wait, for a sandbox or a judge
PREFIX = "/v1/fine_tuning/alpha/graders"

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]


def make_app(*, token: str | None = None, taxonomy: Path | None = None, open_program: bool = False) -> Starlette:
    """The server as an ASGI application. Without a token it answers this machine only."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="grading")
    skills = skills_of(taxonomy)
    answers: dict[str, Answer] = {
        f"{PREFIX}/validate": validate,
        f"{PREFIX}/run": run,
        "/v1/rft/grade": partial(grade, skills=skills),
        program_route.PATH: partial(program_route.score_program, skills=skills),
    }
    routes = [Route(path, _route(threads, answer), methods=["POST"]) for path, answer in answers.items()]
    return Starlette(
        routes=[*routes, Route("/healthz", _health)],
        middleware=[Middleware(Door, token=token, free=(program_route.PATH,) if open_program else ())],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


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
        headers = Headers(scope=scope)
        if self._wanted is not None:
            given = headers.get("authorization", "").encode("utf-8")
            if scope["path"] not in self._free and not hmac.compare_digest(given, self._wanted):
                return error_response(401, "missing or wrong bearer token", code="invalid_api_key")
        elif not is_loopback(_hostname(headers.get("host", ""))):
            return error_response(403, "this server answers requests to localhost only", code="forbidden_host")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return error_response(415, "the body must be sent as content-type: application/json")
        return None


def error_response(
    status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Any = None
) -> Response:
    """OpenAI's error object."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return _json({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)


def _route(threads: ThreadPoolExecutor, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    def work(data: bytes) -> Response:
        try:
            body = parse_json(data.decode("utf-8"))
        except ValueError as error:
            return error_response(400, f"the body is not JSON: {error}")
        if not isinstance(body, dict):
            return error_response(400, "the body must be a JSON object")
        try:
            return _json(answer(body))
        except BadRequest as error:
            return error_response(400, str(error), param=error.param)
        except RftError as error:
            return error_response(500, str(error))

    async def endpoint(request: Request) -> Response:
        data = await _body(request)
        return await asyncio.get_running_loop().run_in_executor(threads, work, data)

    return endpoint


async def _body(request: Request) -> bytes:
    """The whole body. Raises HTTPException if it is too large or too slow."""
    too_large = HTTPException(413, f"the body has more than {MAX_BODY_BYTES >> 20} MB")
    if int(request.headers.get("content-length", "0")) > MAX_BODY_BYTES:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                data += piece
                if len(data) > MAX_BODY_BYTES:
                    raise too_large
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not come within {BODY_SECONDS:g} s") from error
    return bytes(data)


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
