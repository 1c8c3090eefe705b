"""All instructions by their public ids, and what their arguments must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.ifeval import counts, formats, language

Argument = Literal["count", "relation", "text", "texts", "letter", "language"]
RELATIONS = ("less than", "at least")
MAX_KEYWORD = 200  # the time to find one grows with its length

INSTRUCTIONS: Mapping[str, tuple[Callable[..., bool], Mapping[str, Argument]]] = {
    "change_case:capital_word_frequency": (
        counts.capital_word_frequency,
        {"capital_frequency": "count", "capital_relation": "relation"},
    ),
    "change_case:english_capital": (language.english_capital, {}),
    "change_case:english_lowercase": (language.english_lowercase, {}),
    "combination:repeat_prompt": (formats.repeat_prompt, {"prompt_to_repeat": "text"}),
    "combination:two_responses": (formats.two_responses, {}),
    "detectable_content:number_placeholders": (formats.number_placeholders, {"num_placeholders": "count"}),
    "detectable_content:postscript": (formats.postscript, {"postscript_marker": "text"}),
    "detectable_format:constrained_response": (formats.constrained_response, {}),
    "detectable_format:json_format": (formats.json_format, {}),
    "detectable_format:multiple_sections": (
        formats.multiple_sections,
        {"section_spliter": "text", "num_sections": "count"},
    ),
    "detectable_format:number_bullet_lists": (formats.number_bullet_lists, {"num_bullets": "count"}),
    "detectable_format:number_highlighted_sections": (
        formats.number_highlighted_sections,
        {"num_highlights": "count"},
    ),
    "detectable_format:title": (formats.title, {}),
    "keywords:existence": (counts.existence, {"keywords": "texts"}),
    "keywords:forbidden_words": (counts.forbidden_words, {"forbidden_words": "texts"}),
    "keywords:frequency": (counts.frequency, {"keyword": "text", "frequency": "count", "relation": "relation"}),
    "keywords:letter_frequency": (
        counts.letter_frequency,
        {"letter": "letter", "let_frequency": "count", "let_relation": "relation"},
    ),
    "language:response_language": (language.response_language, {"language": "language"}),
    "length_constraints:nth_paragraph_first_word": (
        counts.nth_paragraph_first_word,
        {"num_paragraphs": "count", "nth_paragraph": "count", "first_word": "text"},
    ),
    "length_constraints:number_paragraphs": (counts.number_paragraphs, {"num_paragraphs": "count"}),
    "length_constraints:number_sentences": (
        counts.number_sentences,
        {"num_sentences": "count", "relation": "relation"},
    ),
    "length_constraints:number_words": (counts.number_words, {"num_words": "count", "relation": "relation"}),
    "punctuation:no_comma": (language.no_comma, {}),
    "startend:end_checker": (formats.end_checker, {"end_phrase": "text"}),
    "startend:quotation": (formats.quotation, {}),
    # In the original's code, but not in its data.
    "detectable_content:rephrase_paragraph": (
        counts.rephrase_paragraph,
        {"original_paragraph": "text", "low": "count", "high": "count"},
    ),
    "detectable_format:rephrase": (formats.rephrase, {"original_message": "text"}),
    "keywords:key_sentences": (counts.key_sentences, {"key_sentences": "texts", "num_sentences": "count"}),
    "multi-turn:constrained_start": (formats.constrained_start, {"starter": "text"}),
}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction with its arguments, checked."""

    id: str
    holds: Callable[[str], bool]


def instruction(id: Any, given: Any) -> Instruction:
    """Raises GraderError for an unknown id, and for arguments that are missing, unknown or of a wrong kind.

    >>> instruction("punctuation:no_comma", {"keyword": None}).holds("no, never")
    False
    """
    if not isinstance(id, str) or id not in INSTRUCTIONS:
        raise GraderError(f"unknown instruction {id!r}", fix=f"one of {', '.join(INSTRUCTIONS)}")
    function, kinds = INSTRUCTIONS[id]
    if not isinstance(given, Mapping):
        raise GraderError(f"the arguments of {id} must be an object")
    # Tables of the public data carry every argument of every instruction, null where it does not belong.
    given = {key: value for key, value in given.items() if value is not None}
    if given.keys() != kinds.keys():
        takes, got = ", ".join(kinds) or "no arguments", ", ".join(map(str, given)) or "none"
        raise GraderError(f"{id} takes {takes}, not {got}")
    arguments = {key: _checked(f"{key} of {id}", given[key], kind) for key, kind in kinds.items()}
    if arguments.get("nth_paragraph", 1) not in range(1, arguments.get("num_paragraphs", 1) + 1):
        raise GraderError(f"nth_paragraph of {id} must be from 1 to num_paragraphs")
    return Instruction(id, lambda text: function(text, **arguments))


def _checked(name: str, value: Any, kind: Argument) -> Any:
    match kind:
        case "count":
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # pandas writes 3.0 in columns with gaps
            right, what = isinstance(value, int) and not isinstance(value, bool) and value >= 0, "a count"
        case "relation":
            right, what = value in RELATIONS, " or ".join(map(repr, RELATIONS))
        case "texts":
            right = isinstance(value, list) and bool(value) and all(_is_keyword(text) for text in value)
            what = f"a list of texts of 1 to {MAX_KEYWORD} characters"
        case "text":
            right, what = isinstance(value, str) and bool(value.strip()), "a text"
            if name.startswith("keyword "):
                right, what = _is_keyword(value), f"a text of 1 to {MAX_KEYWORD} characters"
        case "letter":
            right, what = isinstance(value, str) and len(value.strip()) == len(value) == 1, "one character"
        case "language":
            right, what = value in language.languages(), f"one of {', '.join(language.languages())}"
    if not right:
        raise GraderError(f"{name} must be {what}, not {str(value)[:40]!r}")
    return value


def _is_keyword(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= MAX_KEYWORD
