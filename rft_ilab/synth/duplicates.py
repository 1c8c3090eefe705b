"""Near-duplicates: MinHash and banding find who may be alike (Broder 1997; datasketch), the texts themselves decide.

Two texts are alike if they share ``SAME`` of their words and pairs of neighbouring words (Jaccard), and name the same
numbers: "12 apples" and "13 apples" ask different things, however much else they share.

Not covered: the same thing said in other words; that is another task, and answered as one. Of pairs just at the
threshold one in twenty is not found, and of a text that is a little like very many others only the first
``MOST_COMPARED`` are looked at, so that time stays linear.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable

from datasketch import MinHash, MinHashLSH

SAME = 0.8
# A pair with Jaccard J shares one of B bands of R values with probability 1 - (1 - J^R)^B: 0.95 at 0.8, 0.9999 at 0.93,
# 0.15 at 0.5. False candidates cost a comparison, missed ones are missed.
BANDS, ROWS = 10, 6
MOST_COMPARED = 256
_WORD = re.compile(r"\w+")
_OPERATOR = re.compile(r"[-+*/^=<>%]")


def words(text: str) -> list[str]:
    """Words without case and punctuation; a text that has none is a word itself.

    >>> words("Is it OK?"), words("?!")
    (['is', 'it', 'ok'], ['?!'])
    """
    return _WORD.findall(text.casefold()) or [text.strip()]


def alike(one: str, other: str, threshold: float = SAME) -> bool:
    """Whether two texts are near-duplicates.

    >>> alike("Take the 5 pm train, please", "take the 5 pm train please!")
    True
    >>> alike("Take the 5 pm train, please", "Take the 6 pm train, please")
    False
    """
    return one == other or _jaccard(_shingles(one), _shingles(other)) >= threshold


class NearDuplicates:
    """An index of texts that grows. Looking up takes about the same time however many there are."""

    def __init__(self) -> None:
        # SHA-1, the default, is the same in every process: so is what is found.
        self._index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._blank = MinHash(BANDS * ROWS)
        self._entries: list[tuple[str, str]] = []
        # The same words in the same order are found however many others are nearly like them.
        self._same: dict[str, str] = {}

    def add(self, key: str, text: str) -> None:
        self._index.insert(len(self._entries), self._signature(text), check_duplication=False)
        self._entries.append((key, text))
        self._same.setdefault(_normal(text), key)

    def find(self, text: str) -> str | None:
        """The key of the first text added that is alike, or None."""
        if (key := self._same.get(_normal(text))) is not None:
            return key
        own = _shingles(text)
        for place in sorted(self._index.query(self._signature(text)))[:MOST_COMPARED]:
            first, other = self._entries[place]
            if _jaccard(own, _shingles(other)) >= SAME:
                return first
        return None

    def _signature(self, text: str) -> MinHash:
        signature = self._blank.copy()
        signature.update_batch([repr(shingle).encode() for shingle in _shingles(text)])
        return signature


def _numbers(text: str, found: list[str]) -> str:
    """What a calculation is about: all words with digits, and the operators of a text that has such words."""
    numbers = sorted(word for word in found if any(c.isdigit() for c in word))
    return " ".join([*numbers, *_OPERATOR.findall(text)]) if numbers else ""


def _normal(text: str) -> str:
    found = words(text)
    return "\n".join((_numbers(text, found), *found))


def _shingles(text: str) -> frozenset[Hashable]:
    """Words and pairs of words, each with the numbers of the text, so that texts with other numbers share none."""
    found = words(text)
    numbers = _numbers(text, found)
    return frozenset((numbers, part) for part in (*found, *itertools.pairwise(found)))


def _jaccard(one: frozenset[Hashable], other: frozenset[Hashable]) -> float:
    return len(one & other) / len(one | other)
