"""A blocking client of the grader server's batch route. Standard library only: it runs in Open-Instruct's Python.

A lost connection, silence, 408, 425, 429 and 5xx are tried again, with exponential back-off and jitter, until the
deadline; any other refusal is final. Either way :class:`GraderUnavailable` is raised: this module makes no score of a
failure. Proxies of the environment are not used, and no redirect is followed, so the token goes to the server alone.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

ROUTE = "/v1/rft/grade"
TRY_AGAIN = (408, 425, 429)
MAX_SAMPLES = 512  # of one request; the server takes 4,096
MAX_BYTES = 8 << 20  # of the samples of one request; the server takes 16 MB
MAX_ANSWER_BYTES = 64 << 20
BACKOFF_S, MAX_BACKOFF_S = 0.25, 10.0
_JITTER = random.Random()  # not the module's generator, which the trainer seeds


class GraderUnavailable(RuntimeError):
    """The grader server gave no scores. Nothing may be made of that but the end of the run."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the graders are. In seconds: ``try_s`` is the longest silence of a try, ``deadline_s`` all tries
    together.

    ``tolerated`` is the share of grades that may be errors (see :mod:`.verifier`).
    """

    url: str
    token: str = field(default="", repr=False)
    try_s: float = 120.0
    deadline_s: float = 300.0
    tolerated: float = 0.0

    @classmethod
    def from_environment(cls) -> Settings:
        """``RFT_GRADER_URL`` and what goes with it. Raises GraderUnavailable if it is missing or cannot be meant."""
        settings = cls(
            url=os.environ.get("RFT_GRADER_URL", "").rstrip("/"),
            token=os.environ.get("RFT_GRADER_TOKEN", ""),
            deadline_s=_number("RFT_GRADER_DEADLINE_S", 300.0, 86400.0),
            try_s=_number("RFT_GRADER_TRY_S", 120.0, 86400.0),
            tolerated=_number("RFT_GRADER_TOLERATED_ERRORS", 0.0, 0.5),
        )
        try:
            parts = urlsplit(settings.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
            _ = parts.port
        except ValueError:
            usable = False
        if not usable:
            shown = repr(settings.url) if settings.url else "not set"
            raise GraderUnavailable(
                f"RFT_GRADER_URL is {shown} (the address of `ilab rft serve-graders`, http://HOST:PORT)"
            )
        return settings


def _number(name: str, default: float, most: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise GraderUnavailable(f"{name} is {text!r} (a number from 0 to {most:g})")
    return value


def grade(settings: Settings, skill: str, digest: str, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One result a sample, in order: ``{"score", "passed", "error", "reason"}``; either score or error is None.

    ``samples`` are ``{"completion", "item"}``. ``digest`` is that of the grader with which the tasks were exported.
    Raises GraderUnavailable, also if the server has another grader by now or its answer is not one.
    """
    results: list[dict[str, Any]] = []
    for part in _requests(samples):
        answer = _ask(settings, {"skill": skill, "samples": part})
        results += _checked(settings, answer, skill, digest, len(part))
    return results


def _requests(samples: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for sample in samples:
        length = len(json.dumps(sample))
        if part and (len(part) >= MAX_SAMPLES or size + length > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(sample)
        size += length
    if part:
        yield part


def _checked(settings: Settings, answer: Any, skill: str, digest: str, count: int) -> list[dict[str, Any]]:
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != count or not all(map(_is_result, results)):
        raise GraderUnavailable(f"{settings.url} does not answer as a grader server: {json.dumps(answer)[:200]}")
    if digest and answer.get("grader_digest") != digest:
        raise GraderUnavailable(
            f"{settings.url} has another grader for {skill} than the one with which the tasks were exported "
            "(export again, or restart the server on the right taxonomy)"
        )
    return results


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict):
        return False
    score, error = result.get("score"), result.get("error")
    if score is None:
        return isinstance(error, str)
    return error is None and isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1


def _ask(settings: Settings, body: dict[str, Any]) -> Any:
    # ASCII, so that half a character in a completion cannot make the body impossible to send.
    data = json.dumps(body).encode("ascii")
    end, tries, problem = time.monotonic() + settings.deadline_s, 0, "no try was made"
    while True:
        tries += 1
        left = max(end - time.monotonic(), 0.1)
        try:
            status, text = _post(settings, data, min(settings.try_s, left))
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
        else:
            if status == 200:
                try:
                    return json.loads(text)
                except ValueError:
                    problem = f"no JSON: {text[:80]!r}"
            else:
                problem = f"HTTP {status}{_said(text)}"
                if status < 500 and status not in TRY_AGAIN:
                    raise GraderUnavailable(f"{settings.url} refuses to grade: {problem}")
        wait = min(MAX_BACKOFF_S, BACKOFF_S * 2 ** min(tries - 1, 16)) * _JITTER.uniform(0.5, 1.0)
        if time.monotonic() + wait >= end:
            raise GraderUnavailable(
                f"no grades from {settings.url} in {tries} tries and {settings.deadline_s:g} s; last: {problem}"
            )
        time.sleep(wait)


def _post(settings: Settings, data: bytes, timeout: float) -> tuple[int, str]:
    parts = urlsplit(settings.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    headers = {"content-type": "application/json"}
    if settings.token:
        headers["authorization"] = f"Bearer {settings.token}"
    try:
        connection.request("POST", parts.path + ROUTE, body=data, headers=headers)
        answer = connection.getresponse()
        text = answer.read(MAX_ANSWER_BYTES)
        return answer.status, text.decode("utf-8", "replace")
    finally:
        connection.close()


def _said(text: str) -> str:
    try:
        return f" ({str(json.loads(text)['error']['message'])[:300]})"
    except (ValueError, LookupError, TypeError):
        return ""
