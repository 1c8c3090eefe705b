"""What OpenAI-compatible servers reply, read with suspicion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rft_ilab.client import said


@dataclass(frozen=True, slots=True)
class Completion:
    """The part of a chat completion that counts."""

    text: str
    stop: str
    prompt_tokens: int
    completion_tokens: int


def read_completion(text: str) -> Completion:
    """A chat completion out of the body of an answer. Raises ValueError with one line if it is none.

    No content (a refusal, a call of a tool) is an empty text; half a character becomes U+FFFD, since no file and no
    cache can hold it.
    """
    answer = _object(text)
    try:
        choice = answer["choices"][0]
        content = choice["message"].get("content")
        finish = choice.get("finish_reason")
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"the answer is not a chat completion{said(text)}") from error
    if not isinstance(content, str | None):
        raise ValueError("the content of the answer is not a text")
    spent = answer.get("usage")
    usage = spent if isinstance(spent, dict) else {}
    return Completion(
        text=_whole(content or ""),
        stop="length" if finish == "length" else "eos",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def read_models(text: str) -> list[str]:
    """The names of the models that a server lists, at least one. Raises ValueError with one line if there is none."""
    try:
        names = [_whole(str(model["id"])) for model in _object(text)["data"]]
    except (LookupError, TypeError) as error:
        raise ValueError(f"it lists no model{said(text)}") from error
    if not names:
        raise ValueError(f"it lists no model{said(text)}")
    return names


def _whole(text: str) -> str:
    """The text with halves of characters replaced: no file and no cache can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("the answer is not a JSON object")
    return value


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
