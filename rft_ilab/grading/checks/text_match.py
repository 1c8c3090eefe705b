"""``text_match``: the answer and the reference are the same text, by a rule that other evaluation tools use.

``rule`` says what does not count: nothing (``exact``), case (``lower``), or case, punctuation, the articles a, an,
the and white space (``squad``: SQuAD, https://arxiv.org/abs/1606.05250). ``score`` says what is compared: ``equal``,
``prefix`` (the answer begins with the reference), ``contains`` (it has it somewhere), ``overlap`` (either has the
other) or ``f1`` (words in common, SQuAD's F1). With ``alternatives`` the reference is a JSON list of texts and the
best counts. With ``tags`` everything up to the last ``</think>`` is dropped, and the marks ``<answer>`` and
``</answer>``. With ``after`` only what follows its last occurrence is compared, with ``before`` only what stands before
its first occurrence after that; an answer that lacks a mark is wrong, or with ``bare`` counts as far as it is there.

Same rule as: open-instruct ``puzzle`` (squad, equal, tags), ``string_f1`` (squad, f1, tags), ``flan`` (squad, equal,
after "The answer is: ", bare), ``string_matcher`` (squad, equal, after ``<answer>``, before ``</answer>``);
openai/evals ``Match`` (exact, prefix), ``Includes`` (exact or lower, contains), ``FuzzyMatch`` (squad, overlap or f1).

An answer longer than 100,000 characters is wrong. Not covered: languages other than English (articles), look-alike
characters. ``contains`` and ``overlap`` accept an answer that lists everything, ``overlap`` even one letter: use them
to compare with those tools, not as a reward.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import FLAG, TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, Unanswered, shown
from rft_ilab.grading.template import Template
from rft_ilab.skills.reading import parse_json

LIMIT = 100_000
RULES = ("exact", "lower", "squad")
SCORES = ("equal", "prefix", "contains", "overlap", "f1")
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str, rule: str) -> str:
    """
    >>> normalise("The  cat's hat.", "squad")
    'cats hat'
    """
    if rule == "exact":
        return text
    text = text.lower()
    if rule == "lower":
        return text
    return " ".join(ARTICLES.sub(" ", text.translate(NO_PUNCTUATION)).split())


def compare(found: str, wanted: str, score: str) -> float:
    """
    >>> compare("hello world", "hello", "f1")
    0.6666666666666666
    """
    match score:
        case "equal":
            return float(found == wanted)
        case "prefix":
            return float(found.startswith(wanted))
        case "contains":
            return float(wanted in found)
        case "overlap":
            return float(found == wanted if not found or not wanted else found in wanted or wanted in found)
    words, expected = found.split(), wanted.split()
    common = sum((Counter(words) & Counter(expected)).values())
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def without_tags(text: str) -> str:
    return text.rpartition("</think>")[2].replace("<answer>", "").replace("</answer>", "").strip()


def between(text: str, after: str, before: str, bare: bool) -> str:
    """What stands between two marks, either of which may be empty. Raises Unanswered if one lacks, unless ``bare``.

    >>> between("<a>no</a><a>yes</a>", "<a>", "</a>", bare=False), between("yes", "is: ", "", bare=True)
    ('yes', 'yes')
    """
    missing = [mark for mark in (after, before) if mark not in text]
    if missing and not bare:
        raise Unanswered(f"no {shown(missing[0])} in the answer")
    text = text.rpartition(after)[2] if after else text
    return text.partition(before)[0] if before else text


class TextMatchCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT}
    OPTIONAL: ClassVar[Keys] = {
        "rule": TEXT, "score": TEXT, "alternatives": FLAG, "tags": FLAG, "after": TEXT, "before": TEXT, "bare": FLAG,
    }  # fmt: skip

    def __init__(
        self,
        input: str,
        reference: str,
        rule: str = "squad",
        score: str = "equal",
        alternatives: bool = False,
        tags: bool = False,
        after: str = "",
        before: str = "",
        bare: bool = False,
    ) -> None:
        for name, value, known in (("rule", rule, RULES), ("score", score, SCORES)):
            if value not in known:
                raise GraderError(f"unknown {name} {value!r}", fix=f"one of {', '.join(known)}")
        self._input, self._reference = Template(input), Template(reference)
        self._rule, self._score, self._alternatives, self._tags = rule, score, alternatives, tags
        self._after, self._before, self._bare = after, before, bare

    def mark_one(self, sample: Sample) -> Mark:
        wanted = self._wanted(self._reference.render(sample))
        if isinstance(wanted, str):
            return Mark.failed(wanted)
        answer = self._input.render(sample)
        if len(answer) > LIMIT:
            return Mark(0.0, None, f"the answer is longer than {LIMIT} characters")
        answer = between(answer, self._after, self._before, self._bare)
        answer = without_tags(answer) if self._tags else answer
        found = normalise(answer, self._rule)
        scores = [compare(found, text, self._score) for text in wanted]
        best = max(scores)
        reason = "right" if best == 1 else f"{shown(answer)}, expected {shown(wanted[scores.index(best)])}"
        return Mark(best, answer[:LIMIT], reason)

    def _wanted(self, text: str) -> list[str] | str:
        """The normalised references, or what is wrong with them."""
        wanted = [text]
        if self._alternatives:
            try:
                wanted = parse_json(text)
            except ValueError as error:
                return f"the reference is not JSON: {error}"
            if not isinstance(wanted, list) or not wanted or not all(isinstance(each, str) for each in wanted):
                return "the reference is not a JSON list of texts"
        keys = [normalise(each, self._rule) for each in wanted]
        if not all(keys):
            return f"nothing is left of the reference {shown(wanted[keys.index('')])} once it is normalised"
        return keys
