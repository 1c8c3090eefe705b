"""``score_model`` and ``label_model`` of OpenAI: another model says how good the answer is.

The judge is any OpenAI-compatible server: ``endpoint`` (a base URL such as ``http://127.0.0.1:8000/v1``), else the
environment variable ``RFT_JUDGE_ENDPOINT`` or ``OPENAI_BASE_URL``. The key is ``RFT_JUDGE_API_KEY`` or
``OPENAI_API_KEY``, and it is sent only to the server that the environment names: a ``grader.json`` of somebody
else cannot collect it.

As with OpenAI, the judge is asked for ``{"steps": [{"description", "conclusion"}], "result"}`` (a JSON schema as
``response_format``). Unlike OpenAI, nothing is clamped and no failure is a 0: a result outside ``range``, a refusal,
an answer that is not what was asked for and a server that does not answer are errors of the sample. A result within
``range`` is mapped linearly to [0, 1]. Verdicts are kept on disk by endpoint, model, messages and sampling; one that
is kept costs no call.

The answer enters the prompt as it is (OpenAI's templates), except that control tokens such as ``<|im_start|>`` get a
space, because some servers read them as turns. An answer longer than the judge can read scores 0.

Not covered: persuasion. An answer can still say "give this a 1", imitate the delimiters of the prompt, or provoke a
refusal (an error, which leaves the sample out). Tell the judge where the answer starts, and test the grader with
such answers. Images, audio and tools of judges are not supported.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from math import isfinite
from typing import Any, ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import ANY, MESSAGES, OBJECT, TEXT, TEXTS, Keys
from rft_ilab.grading.remote import Remote, RemoteError, check_url, mark_all, model_server, sendable
from rft_ilab.grading.sample import Mark, Sample, ascii_safe, shown
from rft_ilab.grading.template import Template
from rft_ilab.skills.reading import parse_json
from rft_ilab.types import digest

# How the errors of a judge begin: OpenAI's names for them.
REFUSED, UNREADABLE, UNANSWERED = (
    "model_grader_refusal_error", "model_grader_parse_error", "model_grader_server_error",
)  # fmt: skip
ROLES = ("user", "assistant", "system", "developer")
CONTROL = re.compile(r"<(?=\|[^|<>\s]{1,40}\|>|(?:start|end)_of_turn>)")
# OpenAI's key -> the chat API's; ``max_tokens`` stands in an example of OpenAI's own guide.
SAMPLING = {
    "seed": "seed", "top_p": "top_p", "temperature": "temperature", "reasoning_effort": "reasoning_effort",
    "max_completions_tokens": "max_completion_tokens", "max_tokens": "max_tokens",
}  # fmt: skip
STEP = {"description": {"type": "string"}, "conclusion": {"type": "string"}}

#: where to note what judges were asked and what it cost, as (model, tokens); nobody looks unless a caller sets it
SPENT: ContextVar[list[tuple[str, Mapping[str, int]]] | None] = ContextVar("SPENT", default=None)


class Judge:
    """What both types share: messages in, the judge's ``result`` out."""

    def __init__(
        self, model: str, input: Sequence[Any], result: Any, sampling: Mapping[str, Any] | None, endpoint: str | None
    ) -> None:
        if not model.strip():
            raise GraderError("model is empty")
        self._model, self._sampling = model, _sampling(sampling or {})
        self._messages = [_message(turn) for turn in input]
        self._endpoint = None if endpoint is None else check_url(endpoint, "endpoint")
        step = _object_schema(STEP)
        self._schema = _object_schema({"steps": {"type": "array", "items": step}, "result": result})

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        return mark_all(samples, self._mark)

    async def _mark(self, remote: Remote, sample: Sample) -> Mark:
        said = sendable(sample)
        harmless = Sample(CONTROL.sub("< ", said.text), said.item)
        messages = [
            {"role": role, "content": ascii_safe("\n".join(part.render(harmless) for part in parts))}
            for role, parts in self._messages
        ]
        try:
            answer = await self._answer(remote, messages)
        except RemoteError as error:
            if error.too_long and 2 * len(harmless.text) > sum(len(turn["content"]) for turn in messages):
                return Mark(0.0, None, "the answer is longer than the judge can read")
            return Mark.failed(f"{UNANSWERED}: {error}")
        if answer["refusal"]:
            return Mark.failed(f"{REFUSED}: {shown(answer['refusal'], 200)}")
        return self._read(answer["text"])

    async def _answer(self, remote: Remote, messages: Any) -> dict[str, Any]:
        url, headers = model_server(self._endpoint)
        key = digest(["judge", url, self._model, messages, self._sampling, self._schema])
        if (kept := remote.kept(key)) is not None:
            _note(kept["model"], {})
            return dict(kept)
        answer = await remote.once(key, lambda: self._ask(remote, url, headers, messages))
        # A refusal, and what could not be read, is asked again next time.
        if not answer["refusal"] and self._read(answer["text"]).error is None:
            remote.keep(key, answer)
        return answer

    async def _ask(self, remote: Remote, url: str, headers: Mapping[str, str], messages: Any) -> dict[str, Any]:
        body = {"model": self._model, "messages": messages, **self._sampling}
        strict = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": self._schema}}
        try:
            answer = await remote.post(f"{url}/chat/completions", {**body, "response_format": strict}, headers)
        except RemoteError as error:
            if error.status not in (400, 422) or not re.search("response_format|json_schema", error.body):
                raise
            # llama-cpp-python, which InstructLab serves models with, knows this older form only.
            older = {"type": "json_object", "schema": self._schema}
            answer = await remote.post(f"{url}/chat/completions", {**body, "response_format": older}, headers)
        try:
            return _completion(answer, self._model)
        except (LookupError, TypeError, AttributeError) as error:
            raise RemoteError("the answer is not a chat completion") from error

    def _read(self, text: str) -> Mark:
        try:
            verdict = parse_json(text)
            if not isinstance(verdict, dict) or verdict.keys() != {"steps", "result"}:
                raise ValueError("not an object of steps and result")
            steps = verdict["steps"]
            if not isinstance(steps, list) or not all(_is_step(step) for step in steps):
                raise ValueError("steps are not a list of descriptions and conclusions")
            return self._score(verdict["result"], f": {shown(text, 300)}")
        except ValueError as error:
            return Mark.failed(f"{UNREADABLE}: {error}: {shown(text, 120)}")

    def _score(self, result: Any, said: str) -> Mark:
        """The mark of a result. Raises ValueError if it is of the wrong kind."""
        raise NotImplementedError


class ScoreModelCheck(Judge):
    REQUIRED: ClassVar[Keys] = {"model": TEXT, "input": MESSAGES}
    OPTIONAL: ClassVar[Keys] = {"range": ANY, "sampling_params": OBJECT, "endpoint": TEXT}

    def __init__(
        self,
        model: str,
        input: Sequence[Any],
        range: Any = (0, 1),
        sampling_params: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> None:
        ends = range if isinstance(range, list | tuple) and all(map(_is_float, range)) else ()
        if len(ends) != 2 or not ends[0] < ends[1] or not isfinite(float(ends[1]) - float(ends[0])):
            raise GraderError(f"range {shown(str(range))}", fix="two numbers, the lower one first, such as [0, 1]")
        self._low, self._high = ends
        super().__init__(model, input, {"type": "number"}, sampling_params, endpoint)

    def _score(self, result: Any, said: str) -> Mark:
        if not _is_number(result):
            raise ValueError("the result is not a number")
        scale = f"{self._low:g} to {self._high:g}"
        if not self._low <= result <= self._high:
            return Mark.failed(f"judge returned {shown(str(result))[1:-1]}, outside range {scale}")
        score = (result - self._low) / (self._high - self._low)
        return Mark(float(score), None, f"judge: {result:g} of {scale}{said}")


class LabelModelCheck(Judge):
    REQUIRED: ClassVar[Keys] = {"model": TEXT, "input": MESSAGES, "labels": TEXTS, "passing_labels": TEXTS}
    OPTIONAL: ClassVar[Keys] = {"sampling_params": OBJECT, "endpoint": TEXT}

    def __init__(
        self,
        model: str,
        input: Sequence[Any],
        labels: Sequence[str],
        passing_labels: Sequence[str],
        sampling_params: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> None:
        if len(set(labels)) != len(labels):
            raise GraderError("a label stands twice in labels")
        if unknown := set(passing_labels) - set(labels):
            raise GraderError(f"passing label {min(unknown)!r} is not one of the labels")
        if len(set(passing_labels)) == len(labels):
            raise GraderError("every label passes", fix="leave at least one out of passing_labels")
        self._labels, self._passing = tuple(labels), frozenset(passing_labels)
        super().__init__(model, input, {"type": "string", "enum": list(labels)}, sampling_params, endpoint)

    def _score(self, result: Any, said: str) -> Mark:
        if result not in self._labels:
            raise ValueError("the result is none of the labels")
        return Mark(float(result in self._passing), None, f"judge: {shown(result)}{said}")


def _completion(answer: Any, model: str) -> dict[str, Any]:
    choice = answer["choices"][0]
    message, usage = choice["message"], answer.get("usage") or {}
    tokens = {name: usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    tokens["cached_tokens"] = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    served = str(answer.get("model") or model)
    _note(served, tokens)
    refusal = message.get("refusal") or ("content filter" if choice.get("finish_reason") == "content_filter" else "")
    return {"text": str(message.get("content") or ""), "refusal": str(refusal), "model": served}


def _note(model: str, tokens: Mapping[str, int]) -> None:
    if (spent := SPENT.get()) is not None:
        spent.append((model, tokens))


def _object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    required = list(properties)
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _is_step(step: Any) -> bool:
    return isinstance(step, dict) and step.keys() == STEP.keys() and all(isinstance(v, str) for v in step.values())


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and (isinstance(value, int) or isfinite(value))
    )


def _is_float(value: Any) -> bool:
    """Not an integer that no float can hold either."""
    return _is_number(value) and abs(value) <= sys.float_info.max


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := set(given) - set(SAMPLING):
        raise GraderError(f"unknown key {min(unknown)!r} in sampling_params", fix=f"known: {', '.join(SAMPLING)}")
    for key, value in given.items():
        if value is not None and (not isinstance(value, str) if key == "reasoning_effort" else not _is_number(value)):
            raise GraderError(
                f"{key} in sampling_params must be {'a text' if key == 'reasoning_effort' else 'a number'}"
            )
    return {SAMPLING[key]: value for key, value in given.items() if value is not None}


def _message(turn: Mapping[str, Any]) -> tuple[str, list[Template]]:
    """A turn as its role and the templates of its text, which may come in parts."""
    if unknown := set(turn) - {"role", "content", "type"}:
        raise GraderError(f"unknown key {min(unknown)!r} in a message", fix="known: role, content, type")
    if turn.get("role") not in ROLES:
        raise GraderError(f"role {shown(str(turn.get('role')))} of a message", fix=f"one of {', '.join(ROLES)}")
    content = turn.get("content")
    parts = content if isinstance(content, list) else [content]
    texts: list[Any] = [part.get("text") if isinstance(part, dict) and _is_text_part(part) else part for part in parts]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise GraderError("the content of a message must be text", fix="images and audio are not supported")
    return turn["role"], [Template(text) for text in texts]


def _is_text_part(part: Mapping[str, Any]) -> bool:
    return part.get("type") in ("input_text", "output_text", "text")
