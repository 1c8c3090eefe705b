"""How it looks: ``detectable_format``, ``detectable_content``, ``combination``, ``startend`` and ``multi-turn``.

Patterns that would take quadratic time on hostile answers (``\\[.*?\\]`` on a million brackets) are loops over lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
BULLETS = (re.compile(r"^[^\S\n]*+\*[^*].*$", re.MULTILINE), re.compile(r"^[^\S\n]*+-.*$", re.MULTILINE))
HIGHLIGHTS = (re.compile(r"\*[^\n*]*\*"), re.compile(r"\*\*[^\n*]*\*\*"))
POSTSCRIPTS = {"P.P.S": re.compile(r"p\.\s?p\.\s?s"), "P.S.": re.compile(r"p\.\s?s\.")}
FENCES = ("```json", "```Json", "```JSON", "```")


def number_bullet_lists(text: str, num_bullets: int) -> bool:
    return sum(1 for pattern in BULLETS for _ in pattern.finditer(text)) == num_bullets


def number_highlighted_sections(text: str, num_highlights: int) -> bool:
    """``*so*`` or ``**so**``, within a line and not blank."""
    found = (match[0] for pattern in HIGHLIGHTS for match in pattern.finditer(text))
    return sum(1 for highlight in found if highlight.strip("*").strip()) >= num_highlights


def number_placeholders(text: str, num_placeholders: int) -> bool:
    """``[so]``, within a line."""
    return sum(1 for line in text.split("\n") for _ in _bracketed(line)) >= num_placeholders


def _bracketed(line: str) -> Iterator[str]:
    end = 0
    while (start := line.find("[", end)) >= 0 and (close := line.find("]", start)) >= 0:
        end = close + 1
        yield line[start:end]


def title(text: str) -> bool:
    """``<<so>>``, within a line."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end > start + 2 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """At least so many headings, such as ``Section 1``."""
    return sum(1 for _ in re.finditer(re.escape(section_spliter.strip()) + r"\s?\d+", text)) >= num_sections


def constrained_response(text: str) -> bool:
    return any(answer in text for answer in ANSWERS)


def json_format(text: str) -> bool:
    """One JSON value, perhaps in a fence; NaN and duplicate keys pass, as in the original."""
    text = text.strip()
    for fence in FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def postscript(text: str, postscript_marker: str) -> bool:
    marker, text = postscript_marker.strip(), text.lower()
    pattern = POSTSCRIPTS.get(marker)
    return pattern.search(text) is not None if pattern else marker.lower() in text


def two_responses(text: str) -> bool:
    """Two different texts around ``******``; a blank piece may only be the first or the last."""
    pieces = [piece.strip() for piece in text.split("******")]
    found = [piece for piece in pieces if piece]
    return all(pieces[1:-1]) and len(found) == 2 and found[0] != found[1]


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def constrained_start(text: str, starter: str) -> bool:
    """Some line starts so, as in the original."""
    return any(line.lstrip().startswith(starter.strip()) for line in text.split("\n"))


def rephrase(text: str, original_message: str) -> bool:
    """The same but for what stands between asterisks, of which there must be some."""
    return text.count("*") > 1 and _without_changes(text) == _without_changes(original_message)


def _without_changes(text: str) -> str:
    lines = []
    for line in text.split("\n"):
        start, end = line.find("*"), line.rfind("*")
        lines.append(line[:start] + line[end + 1 :] if start < end else line)
    return "\n".join(lines)
