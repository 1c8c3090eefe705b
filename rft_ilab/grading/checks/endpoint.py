"""``endpoint``: a web service of your own says how good the answer is.

The type is that of reinforcement fine-tuning on Azure OpenAI (private preview; no SDK of OpenAI has it yet). Each
sample is one ``POST`` of ``{"sample": ..., "item": ..., "trace_id": "trace_..."}``. ``sample`` has ``output_text``,
``output_json``, ``output_tools`` and ``choices`` (the chat completion's form). The answer is ``{"score": 0.5}``, other
keys do not matter, or a bare number. Anything but a number from 0 to 1 is an error, as is a service that does not
answer; lost connections, 408, 425, 429 and 5xx are tried again.

``rate_limit`` is the largest number of requests a second. ``headers`` may hold ``${RFT_ENDPOINT_...}``, which is
filled from the environment variable of that name; other variables are out of reach of a grader.

An answer of more than 65,536 characters is not sent and scores 0.

Not covered: what the service does. It sees the answer and the task's fields, and nothing keeps its answers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import INTEGER, OBJECT, TEXT, Keys
from rft_ilab.grading.remote import Pace, Remote, RemoteError, check_url, mark_all, sendable
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.skills.reading import has_lone_surrogate
from rft_ilab.types import digest

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # of a header, RFC 9110
VALUE = re.compile(r"[\x20-\x7e\t]*")
VARIABLE = re.compile(r"\$\{(RFT_ENDPOINT_[A-Z0-9_]+)\}")
OURS = ("content-type", "content-length", "host", "transfer-encoding")


class EndpointCheck:
    REQUIRED: ClassVar[Keys] = {"url": TEXT}
    OPTIONAL: ClassVar[Keys] = {"headers": OBJECT, "rate_limit": INTEGER}

    def __init__(self, url: str, headers: Mapping[str, Any] | None = None, rate_limit: int | None = None) -> None:
        check_url(url, "url")
        for name, value in (headers or {}).items():
            if not isinstance(value, str) or not VALUE.fullmatch(value) or not NAME.fullmatch(name):
                raise GraderError(f"header {shown(name)} must be a text of printable ASCII")
            if name.lower() in OURS:
                raise GraderError(f"header {name!r} cannot be set")
        if rate_limit is not None and rate_limit < 1:
            raise GraderError("rate_limit must be at least 1 request a second")
        self._url, self._headers = url, dict(headers or {})
        self._pace = Pace(rate_limit) if rate_limit else None

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        return mark_all(samples, self._mark)

    async def _mark(self, remote: Remote, sample: Sample) -> Mark:
        body: dict[str, Any] = {"sample": _as_completion(sendable(sample)), "item": dict(sample.item)}
        headers = {name: VARIABLE.sub(_variable, value) for name, value in self._headers.items()}
        body["trace_id"] = "trace_" + digest(repr(body))[:32]
        try:
            answer = await remote.post(self._url, body, headers, self._pace)
        except RemoteError as error:
            if error.too_long and len(sample.text) > len(str(sample.item)):
                return Mark(0.0, None, "the answer is longer than the endpoint reads")
            return Mark.failed(f"endpoint: {error}")
        score = answer.get("score") if isinstance(answer, dict) else answer
        if isinstance(score, bool) or not isinstance(score, int | float):
            return Mark.failed(f"endpoint returned {shown(str(answer))}, not a score")
        if not 0 <= score <= 1:
            return Mark.failed(f"endpoint returned {shown(str(score))[1:-1]}, outside 0 to 1")
        return Mark(float(score), None, f"endpoint: {score:g}")


def _as_completion(sample: Sample) -> dict[str, Any]:
    shape = sample.as_dict()
    if has_lone_surrogate(shape["output_json"]):
        shape["output_json"] = None  # no reader of JSON takes half a character
    message = {"role": "assistant", "content": sample.text}
    return {**shape, "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}


def _variable(match: re.Match[str]) -> str:
    value = os.environ.get(match[1], "")
    if not value or not VALUE.fullmatch(value):
        raise GraderError(f"the environment variable {match[1]} is not set, or not printable ASCII")
    return value
