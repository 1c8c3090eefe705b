"""Handler of :mod:`.bounded_child` for ``math``: math-verify on one answer. Imports nothing of the project."""

from __future__ import annotations

import re
from typing import Any

MARKED = re.compile(r"\\boxed|\\fbox|\$|\\\(|\\\[")
# Ordinary words: not a LaTeX command, not in \text{...}, not the name of a function.
WORD = re.compile(r"(?<![\\A-Za-z])(?!(?:sqrt|sin|cos|tan|cot|sec|csc|log|exp|pi)(?![A-Za-z]))[A-Za-z]{3,}")
TEXT = re.compile(r"\\(?:text|mathrm|mbox|operatorname|begin|end)\s*\{[^{}]*\}")
TWO_NUMBERS = re.compile(r"[0-9]\s+[0-9]")  # math-verify adds them up
PLAIN_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\(([^()]*)\)")
PLAIN_NAME = re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|log|ln|exp|pi)(?![A-Za-z])")
PLAIN_INFINITY = re.compile(r"(?<![\\A-Za-z])oo(?![A-Za-z])")


def prepare() -> None:
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    for text in (r"$\frac{1}{2}$", r"\boxed{x^2+\sqrt{3}\sin y}", "$(1, 2]$", "so 1/3.", r"$x = \{1, 2\}$"):
        verify(parse(text, parsing_timeout=None), parse(text, parsing_timeout=None), timeout_seconds=None)


def warm(job: dict[str, Any]) -> None:
    """Nothing is kept between jobs."""


def read(text: str) -> list[Any]:
    """math-verify finds marked mathematics, and numbers in prose; a bare expression must be marked for it."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    if not MARKED.search(text) and is_bare(text):
        plain = PLAIN_NAME.sub(r"\\\1 ", PLAIN_ROOT.sub(r"\\sqrt{\1}", text.strip().rstrip(".")))
        plain = PLAIN_INFINITY.sub(r"\\infty ", plain)
        text = "$" + plain.replace("**", "^").replace("*", r" \cdot ") + "$"
    configs = (LatexExtractionConfig(), ExprExtractionConfig())
    return parse(text, configs, fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None)


def is_bare(text: str) -> bool:
    text = text.strip()
    return bool(text) and "\n" not in text and not TWO_NUMBERS.search(text) and not WORD.search(TEXT.sub("", text))


def reference(job: dict[str, Any]) -> list[Any]:
    if not MARKED.search(job["reference"]) and not is_bare(job["reference"]):
        raise ValueError("words, no mathematics")
    expected = read(job["reference"])
    if not expected:
        raise ValueError("no mathematics in it")
    return expected


def score(expected: list[Any], job: dict[str, Any]) -> tuple[float, str | None, str]:
    from math_verify import verify

    found = read(job["answer"])
    if not found:
        return 0.0, None, "no mathematics in the answer"
    shown = str(found[0])
    if verify(expected, found, timeout_seconds=None):
        return 1.0, shown, "right"
    return 0.0, shown, f"{shown[:80]}, expected {str(expected[0])[:80]}"
