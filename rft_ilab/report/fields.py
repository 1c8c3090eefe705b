"""Checked access to parsed JSON: a wrong shape becomes one RunError that names the field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from rft_ilab.errors import RunError

LARGEST = 1e300  # beyond this (JSON allows any integer, and NaN) nothing here is a measurement


class Fields:
    """One JSON object of a run file, with typed getters.

    Every getter raises RunError (file, path of the field, what was expected) on a wrong value;
    ``default`` applies to absent and null fields only.
    """

    def __init__(self, raw: Any, file: Path, place: str = "") -> None:
        self.raw, self.file, self.place = raw, file, place
        if not isinstance(raw, dict):
            raise self._wrong(place or "the file", "an object")

    def _wrong(self, name: str, wanted: str) -> RunError:
        return RunError(f"{name} must be {wanted}", where=self.file, fix="write it anew with: ilab model regress")

    def _name(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def text(self, key: str, default: str | None = None) -> str:
        value = self.raw.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self._wrong(self._name(key), "text")
        return value

    def maybe_text(self, key: str) -> str | None:
        return None if self.raw.get(key) is None else self.text(key)

    def choice(self, key: str, literal: Any) -> Any:
        """A value of a ``Literal`` type."""
        value = self.raw.get(key)
        if value not in get_args(literal):
            raise self._wrong(self._name(key), f"one of {', '.join(get_args(literal))}")
        return value

    def number(self, key: str) -> float:
        return self._number(self.raw.get(key), key)

    def maybe_number(self, key: str) -> float | None:
        value = self.raw.get(key)
        return None if value is None else self._number(value, key)

    def _number(self, value: Any, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise self._wrong(self._name(key), "a finite number")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        value = self.raw.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(self._name(key), "a whole number that is not negative")
        return value

    def maybe_count(self, key: str) -> int | None:
        return None if self.raw.get(key) is None else self.count(key)

    def interval(self, key: str) -> tuple[float, float]:
        value = self.raw.get(key)
        if not isinstance(value, list) or len(value) != 2:
            raise self._wrong(self._name(key), "a pair [low, high]")
        low, high = (self._number(end, key) for end in value)
        if low > high:
            raise self._wrong(self._name(key), "a pair [low, high] with low <= high")
        return low, high

    def object(self, key: str) -> Fields:
        return Fields(self.raw.get(key), self.file, self._name(key))

    def maybe_object(self, key: str) -> Fields | None:
        return None if self.raw.get(key) is None else self.object(key)

    def objects(self, key: str) -> Iterator[Fields]:
        """The objects of a list; an absent list is empty."""
        value = self.raw.get(key, [])
        if not isinstance(value, list):
            raise self._wrong(self._name(key), "a list")
        for index, item in enumerate(value):
            yield Fields(item, self.file, f"{self._name(key)}[{index}]")

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.raw.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(self._name(key), "a list of texts")
        return tuple(value)


def finite_numbers(raw: Any) -> dict[str, float]:
    """The finite numbers of a JSON object, by key; anything else (NaN, text, null) is left out."""
    if not isinstance(raw, dict):
        return {}
    return {
        key: float(value)
        for key, value in raw.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    }
