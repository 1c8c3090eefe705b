"""Labels of Open-Instruct's ``ifeval`` and ``ifeval_old`` as instructions of our ``ifeval`` grader.

``ifeval`` has the ids of IFEval for 25 instructions, which are ours, and 29 more of its own (IFBench, arXiv
2507.02833), which we lack. ``ifeval_old`` (RLVR-IFeval) names functions; those that mean what an id of IFEval means
are in ``OLD``. What is not there (exact counts, "around") raises ValueError.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from typing import Any

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.ifeval.instructions import instruction

Made = tuple[str, dict[str, Any]]


def _bounded(id: str, argument: str) -> Callable[..., Made]:
    def made(N: int, quantifier: str) -> Made:
        if quantifier == "at least":
            return id, {argument: N, "relation": "at least"}
        if quantifier == "at most":
            return id, {argument: N + 1, "relation": "less than"}
        raise ValueError(f"{id} cannot be asked for {quantifier!r} a number")

    return made


def _counted(id: str, argument: str) -> Callable[..., Made]:
    return lambda N: (id, {argument: N})


def _plain(id: str) -> Callable[..., Made]:
    return lambda: (id, {})


OLD: Mapping[str, Callable[..., Made]] = {
    "verify_keywords": lambda keyword_list: ("keywords:existence", {"keywords": keyword_list}),
    "validate_forbidden_words": lambda forbidden_words: (
        "keywords:forbidden_words",
        {"forbidden_words": forbidden_words},
    ),
    "validate_response_language": lambda language: ("language:response_language", {"language": language}),
    "validate_word_constraint": _bounded("length_constraints:number_words", "num_words"),
    "verify_sentence_constraint": _bounded("length_constraints:number_sentences", "num_sentences"),
    "verify_postscript": lambda postscript_marker: (
        "detectable_content:postscript",
        {"postscript_marker": postscript_marker},
    ),
    "validate_placeholders": _counted("detectable_content:number_placeholders", "num_placeholders"),
    "verify_bullet_points": _counted("detectable_format:number_bullet_lists", "num_bullets"),
    "validate_highlighted_sections": _counted("detectable_format:number_highlighted_sections", "num_highlights"),
    "validate_title": _plain("detectable_format:title"),
    "validate_json_format": _plain("detectable_format:json_format"),
    "validate_repeat_prompt": lambda original_prompt: (
        "combination:repeat_prompt",
        {"prompt_to_repeat": original_prompt},
    ),
    "validate_two_responses": _plain("combination:two_responses"),
    "validate_uppercase": _plain("change_case:english_capital"),
    "validate_lowercase": _plain("change_case:english_lowercase"),
    "validate_end": lambda end_phrase: ("startend:end_checker", {"end_phrase": end_phrase}),
    "validate_quotation": _plain("startend:quotation"),
    "validate_no_commas": _plain("punctuation:no_comma"),
}


def ifeval_instructions(label: Any) -> list[dict[str, Any]]:
    """``[{"instruction_id": [...], "kwargs": [...]}]``, as Python or JSON -> instructions. Raises ValueError."""
    read = _read(label)
    first = read[0] if isinstance(read, list) and read else read
    first = _read(first) if isinstance(first, str) else first
    if not isinstance(first, dict):
        raise ValueError("the label is no list with one object")
    ids, kwargs = first.get("instruction_id"), first.get("kwargs")
    if not isinstance(ids, list) or not isinstance(kwargs, list) or not ids or len(ids) != len(kwargs):
        raise ValueError("the label has no instruction_id and kwargs, two lists of equal length")
    return [_checked(id, given or {}) for id, given in zip(ids, kwargs, strict=True)]


def old_instructions(label: Any) -> list[dict[str, Any]]:
    """``{"func_name": ..., argument: ...}`` -> one instruction. Raises ValueError."""
    read = _read(label)
    if not isinstance(read, dict) or not isinstance(read.get("func_name"), str):
        raise ValueError("the label has no func_name")
    given = {key: value for key, value in read.items() if value is not None and key != "func_name"}
    make = OLD.get(read["func_name"])
    if make is None:
        raise ValueError(f"{read['func_name']} has no equal among the instructions of ifeval")
    try:
        return [_checked(*make(**given))]
    except TypeError as error:
        raise ValueError(f"{read['func_name']} was given {', '.join(given) or 'nothing'}") from error


def _checked(id: Any, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError("kwargs must be objects")
    kwargs = {key: value for key, value in given.items() if value is not None}
    try:
        instruction(id, kwargs)
    except GraderError as error:
        raise ValueError(error.what) from error
    return {"instruction_id": id, "kwargs": kwargs}


def _read(label: Any) -> Any:
    """JSON, or a Python literal, as Open-Instruct reads it. Raises ValueError."""
    if not isinstance(label, str):
        return label
    try:
        return json.loads(label)
    except ValueError:
        pass
    try:
        return ast.literal_eval(label)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError("the label is neither JSON nor a Python literal") from error
