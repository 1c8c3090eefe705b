"""Contamination: does a training text stand, nearly, in a val or test split? By n-gram overlap.

The share of a text's words that lie in a run of ``RUN`` words which a held-out question has too; from ``OVERLAP`` on
the text is contaminated (the rule of Tulu 3, arXiv 2411.15124, section 3.2). A text shorter than a run is contaminated
only if it is the same, word by word. Numbers are no excuse: a test question with other numbers is still that question.

Within a skill, people and programs that write tasks say by ``group`` what may not cross a split, and templates share
most of their words on purpose; so their tasks may be like held-out ones of their own skill, but not the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rft_ilab.synth.duplicates import words

RUN = 8
OVERLAP = 0.5


@dataclass(frozen=True, slots=True)
class Contamination:
    """``key`` is the held-out task that shares most, ``overlap`` the share of the text's words, in (0, 1]."""

    key: str
    overlap: float

    @property
    def reason(self) -> str:
        if self.overlap == 1.0:
            return "a val or test task has all of its words in a row"
        return f"shares {self.overlap:.0%} of its words in a row with val or test tasks"


class HeldOut:
    """The questions of val and test splits: (id, skill, text) of each."""

    def __init__(self, tasks: Iterable[tuple[str, str, str]]) -> None:
        self._whole: dict[tuple[str, ...], str] = {}
        self._runs: dict[tuple[str, ...], dict[str, str]] = {}
        for key, skill, text in tasks:
            found = words(text)
            self._whole.setdefault(tuple(found), key)
            for run in _runs(found):
                self._runs.setdefault(run, {}).setdefault(skill, key)

    def find(self, text: str, *, own: str | None = None) -> Contamination | None:
        """What the text is contaminated by. Held-out tasks of the skill ``own`` count only if they are the same."""
        found = words(text)
        if (key := self._whole.get(tuple(found))) is not None:
            return Contamination(key, 1.0)
        covered = [False] * len(found)
        sharing: Counter[str] = Counter()
        for start, run in enumerate(_runs(found)):
            keys = [key for skill, key in self._runs.get(run, {}).items() if skill != own]
            if keys:
                covered[start : start + RUN] = [True] * RUN
                sharing.update(keys)
        overlap = sum(covered) / len(found)
        if overlap < OVERLAP:
            return None
        return Contamination(max(sharing, key=lambda key: (sharing[key], key)), overlap)


def _runs(found: list[str]) -> Iterable[tuple[str, ...]]:
    return (tuple(found[i : i + RUN]) for i in range(len(found) - RUN + 1))
