r"""``regex``: the answer matches a pattern, by google-re2 (https://github.com/google/re2), in linear time.

The whole answer must match; with ``full`` false it is enough that the pattern is found. ``flags`` holds ``i`` (any
case), ``m`` (``^`` and ``$`` at every line) and ``s`` (``.`` also is a line break). What matches ``reject`` anywhere
is wrong. ``at_least`` and ``at_most`` count matches that do not overlap, in place of ``full``.

re2 has no look-around and no back-reference: a pattern with one does not build (``reject`` often does the same). A
pattern is a plain text, no template. ``\d``, ``\w`` and ``\b`` are ASCII. An answer longer than 100,000 characters is
wrong. TRL's ``think_format_reward`` is ``"pattern": "<think>.*</think>.*", "reject": "<think>.*<think>", "flags":
"s"``.

Not covered: what a match captures is not compared with anything; look-alike characters are other characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar

import re2

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import FLAG, INTEGER, TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample, shown
from rft_ilab.grading.template import Template

LIMIT = 100_000
MAX_PATTERN = 10_000
LETTERS: Mapping[str, str] = {"i": "(?i)", "m": "(?m)", "s": "(?s)"}


def compiled(pattern: str, flags: str = "") -> Any:
    """The pattern as re2's. Raises GraderError that says what re2 cannot do."""
    if len(pattern) > MAX_PATTERN:
        raise GraderError(f"a pattern is longer than {MAX_PATTERN} characters")
    if len(set(flags)) != len(flags) or not set(flags) <= LETTERS.keys():
        raise GraderError(f"flags {flags!r}", fix="some of i, m, s, each once")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile("".join(LETTERS[letter] for letter in flags) + pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        what = error.args[0] if error.args else error
        text = what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)
        raise GraderError(
            f"pattern {shown(pattern)}: {text}", fix="patterns are re2's: no look-around, no back-reference"
        ) from error


def searchable(text: str) -> str:
    """The text, with U+FFFD for halves of characters, which re2 cannot read.

    >>> searchable("a\\ud800")
    'a\ufffd'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class RegexCheck:
    REQUIRED: ClassVar[Keys] = {"input": TEXT, "pattern": TEXT}
    OPTIONAL: ClassVar[Keys] = {
        "full": FLAG,
        "flags": TEXT,
        "reject": TEXT,
        "at_least": INTEGER,
        "at_most": INTEGER,
    }

    def __init__(
        self,
        input: str,
        pattern: str,
        full: bool | None = None,
        flags: str = "",
        reject: str | None = None,
        at_least: int | None = None,
        at_most: int | None = None,
    ) -> None:
        self._counts = at_least is not None or at_most is not None
        if self._counts and full is not None:
            raise GraderError("full does not go with at_least and at_most, which count what is found")
        if min(at_least or 0, at_most or 0) < 0 or (at_most is not None and at_most < (at_least or 0)):
            raise GraderError(f"no count is at least {at_least or 0} and at most {at_most}")
        self._input = Template(input)
        self._pattern, self._full = compiled(pattern, flags), full is not False
        self._reject = None if reject is None else compiled(reject, flags)
        self._at_least, self._at_most = at_least or 0, at_most

    def mark_one(self, sample: Sample) -> Mark:
        answer = self._input.render(sample)
        if len(answer) > LIMIT:
            return Mark(0.0, None, f"the answer is longer than {LIMIT} characters")
        text = searchable(answer)
        if self._reject is not None and (bad := self._reject.search(text)):
            return Mark(0.0, answer, f"{shown(bad[0])} is not allowed")
        if self._counts:
            return self._counted(text, answer)
        match = self._pattern.fullmatch(text) if self._full else self._pattern.search(text)
        if match:
            return Mark(1.0, match[0], "right")
        return Mark(0.0, answer, f"{shown(answer)} {'does not match' if self._full else 'has no match'}")

    def _counted(self, text: str, answer: str) -> Mark:
        # Counting stops as soon as the verdict is known.
        enough = self._at_least if self._at_most is None else self._at_most + 1
        count = sum(1 for _ in islice(self._pattern.finditer(text), enough))
        if count < self._at_least:
            return Mark(0.0, answer, f"{count} matches, fewer than {self._at_least}")
        if self._at_most is not None and count > self._at_most:
            return Mark(0.0, answer, f"more than {self._at_most} matches")
        return Mark(1.0, answer, "right")
