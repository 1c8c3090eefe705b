"""``label``: the whole answer is one of the labels, and the right one.

Answer and labels are normalised alike: case folded, outer punctuation and white space stripped, runs of
spaces and hyphens become ``_``. ``**Rx question.**`` is ``rx_question``; ``It is RX_QUESTION`` is no label.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import TEXT, TEXTS, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template


def normalise(text: str, most: int = -1) -> str:
    """``most`` spares the work on a text of more words: what comes of it is then longer than ``most`` characters.

    >>> normalise(" **Rx-question**.\\n")
    'rx_question'
    """
    outer = ""
    while text and (_outer(last := text[0]) or _outer(last := text[-1])):
        outer += last
        text = text.strip(outer)
    # What is left neither starts nor ends with white space or a hyphen.
    return "_".join(text.casefold().replace("-", " ").split(maxsplit=most))


@lru_cache(maxsize=1024)
def _outer(character: str) -> bool:
    return character.isspace() or character == "`" or unicodedata.category(character).startswith("P")


class LabelCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT, "labels": TEXTS}
    OPTIONAL: ClassVar[Keys] = {}

    def __init__(self, input: str, reference: str, labels: Sequence[str]) -> None:
        self._input, self._reference = Template(input), Template(reference)
        self._labels: dict[str, str] = {}
        for label in labels:
            key = normalise(label)
            if not key:
                raise GraderError(f"label {label!r} is empty once its punctuation is stripped")
            if key in self._labels:
                raise GraderError(f"labels {self._labels[key]!r} and {label!r} are the same once normalised")
            self._labels[key] = label
        self._longest = max(map(len, self._labels))

    def mark_one(self, sample: Sample) -> Mark:
        reference = self._reference.render(sample)
        wanted = self._labels.get(normalise(reference))
        if wanted is None:
            return Mark.failed(f"unknown label {shown(reference)}: not one of {', '.join(self._labels.values())}")
        answer = self._input.render(sample)
        found = self._labels.get(normalise(answer, self._longest))
        if found is None:
            what = f"{shown(answer)} is not one of the {len(self._labels)} labels" if answer.strip() else "no answer"
            return Mark(0.0, None, f"{what}; expected {wanted}")
        return Mark(float(found == wanted), found, "right" if found == wanted else f"{found}, expected {wanted}")
