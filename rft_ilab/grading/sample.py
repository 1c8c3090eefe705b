"""What a check sees (:class:`Sample`) and what it says (:class:`Mark`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from rft_ilab.skills.reading import parse_json

SHOWN = 80


class Unanswered(LookupError):
    """The model's output lacks what the grader asks for. That is a wrong answer, not an error."""


class Sample:
    """One completion with the fields of its task; its JSON is parsed when first asked for."""

    __slots__ = ("_json", "item", "text")

    def __init__(self, text: str, item: Mapping[str, Any]) -> None:
        self.text, self.item = text, item
        self._json: tuple[Any, str] | None = None

    @property
    def json(self) -> Any:
        """The completion as strict JSON. Raises Unanswered if it is none."""
        if self._json is None:
            try:
                self._json = (parse_json(self.text), "")
            except ValueError as error:
                self._json = (None, f"the answer is not JSON: {error}")
        value, problem = self._json
        if problem:
            raise Unanswered(problem)
        return value

    def as_dict(self) -> dict[str, Any]:
        """OpenAI's ``sample``: text, JSON or None, and tool calls (policies here make none)."""
        try:
            parsed = self.json
        except Unanswered:
            parsed = None
        return {"output_text": self.text, "output_json": parsed, "output_tools": []}


class Mark(NamedTuple):
    """A score in [0, 1], or an error; ``answer`` is what was extracted, ``reason`` is for people.

    A named tuple and not a frozen dataclass: one is made for every grade, and it is made in half the time.
    """

    score: float | None
    answer: str | None = None
    reason: str = ""
    error: str | None = None

    @classmethod
    def failed(cls, error: str) -> Mark:
        return cls(None, error=error or "unknown error")


class Check(Protocol):
    """A compiled grader. Marks come in the order of the samples, one each."""

    def mark(self, samples: Sequence[Sample]) -> list[Mark]: ...


def shown(text: str, limit: int = SHOWN) -> str:
    """A text for people: one line, shortened, printable.

    >>> shown("a\\nb")
    "'a\\\\nb'"
    """
    return ascii_safe(repr(text if len(text) <= limit else text[: limit - 1] + "…"))


def ascii_safe(text: str) -> str:
    """The text with halves of characters escaped, so that it can be written as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
