"""A reinforcement fine-tuning job for OpenAI: a skill's grader as OpenAI knows it, and the body of the job.

OpenAI knows ``string_check``, ``text_similarity``, ``score_model``, ``python`` and ``multi``. Of our own types a
``label`` becomes a ``python`` grader that decides alike, and a ``text_match`` of whole texts a ``string_check``; the
others are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rft_ilab.errors import GraderError

MODEL = "o4-mini-2025-04-16"
TRAINING_FILE, VALIDATION_FILE = "TRAINING_FILE_ID", "VALIDATION_FILE_ID"
KEYS: Mapping[str, tuple[str, ...]] = {
    "string_check": ("input", "reference", "operation"),
    "text_similarity": ("input", "reference", "evaluation_metric"),
    "score_model": ("input", "model", "range", "sampling_params"),
    "label_model": ("input", "model", "labels", "passing_labels"),
    "python": ("source", "image_tag"),
}
TEXT_DEFAULTS = {"rule": "squad", "score": "equal", "alternatives": False, "tags": False, "after": "", "before": ""}
WHOLE_TEXT = {**TEXT_DEFAULTS, "rule": "exact"}
TOP = ("string_check", "text_similarity", "score_model", "python", "multi")
ANSWER = re.compile(r"\{\{\s*sample\.output_text\s*\}\}")
FIELD = re.compile(r"\{\{\s*item\.(\w+)\s*\}\}")
WAY_OUT = "write it as a python grader, or train with trl, verl or open-instruct, which ask our grader server"

# The same rule as rft_ilab/grading/checks/label.py; a test holds both together.
LABEL_SOURCE = """import re
import unicodedata

LABELS = {labels}


def normalise(text):
    start, end = 0, len(text)
    while start < end and outer(text[start]):
        start += 1
    while end > start and outer(text[end - 1]):
        end -= 1
    return re.sub(r"[\\s\\-]+", "_", text[start:end].casefold())


def outer(character):
    return character.isspace() or character == "`" or unicodedata.category(character).startswith("P")


def grade(sample, item):
    wanted = normalise(item[{field}])
    if wanted not in {{normalise(label) for label in LABELS}}:
        raise ValueError("unknown label")
    return float(normalise(sample["output_text"]) == wanted)
"""


def job_body(
    grader: Mapping[str, Any], *, skill: str, model: str = MODEL, validation: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """The body of ``POST /v1/fine_tuning/jobs``, with placeholders for the ids of files; and notes on the grader.

    Raises GraderError if OpenAI has no such grader.
    """
    asked, notes = job_grader(grader, name=skill.rsplit("/", 1)[-1])
    body = {
        "model": model,
        "training_file": TRAINING_FILE,
        **({"validation_file": VALIDATION_FILE} if validation else {}),
        "suffix": skill.replace("/", "-").replace("_", "-")[:64],
        "method": {
            "type": "reinforcement",
            "reinforcement": {"grader": asked, "hyperparameters": {"n_epochs": "auto", "reasoning_effort": "medium"}},
        },
        "metadata": {"skill": skill[:512]},
    }
    return body, notes


def job_grader(grader: Mapping[str, Any], *, name: str) -> tuple[dict[str, Any], list[str]]:
    """A grader as OpenAI takes it, and notes on what is different there. Raises GraderError."""
    kind, named = grader.get("type"), str(grader.get("name") or name)
    notes = []
    if "pass_threshold" in grader:
        notes.append("OpenAI rewards the score; pass_threshold has no place in a job")
    if kind == "label":
        return _label(grader, named), [*notes, "the label grader became a python grader that decides alike"]
    if kind == "text_match" and {**TEXT_DEFAULTS, **grader}.items() >= WHOLE_TEXT.items():
        kept = {key: grader[key] for key in ("input", "reference")}
        return {"type": "string_check", "name": named, **kept, "operation": "eq"}, notes
    if kind == "multi":
        parts = grader["graders"]
        pairs = parts.items() if isinstance(parts, Mapping) else ((part["name"], part) for part in parts)
        made = {}
        for key, part in pairs:
            made[key], said = (
                job_grader(part, name=key) if part.get("type") != "label_model" else (_known(part, key), [])
            )
            notes += said
        return {"type": "multi", "name": named, "graders": made, "calculate_output": grader["calculate_output"]}, notes
    if kind not in TOP:
        raise GraderError(f"OpenAI has no grader of type {kind!r}", fix=WAY_OUT)
    if "endpoint" in grader:
        notes.append("the judge's endpoint was left out: OpenAI asks its own model")
    return _known(grader, named), notes


def _known(grader: Mapping[str, Any], name: str) -> dict[str, Any]:
    kind = str(grader["type"])
    kept = {key: grader[key] for key in KEYS[kind] if key in grader}
    if kept.get("operation") == "neq":
        kept["operation"] = "ne"
    return {"type": kind, "name": str(grader.get("name") or name), **kept}


def _label(grader: Mapping[str, Any], name: str) -> dict[str, Any]:
    field = FIELD.fullmatch(str(grader["reference"]).strip())
    if not ANSWER.fullmatch(str(grader["input"]).strip()) or field is None:
        raise GraderError("a label grader with templates of its own has no like at OpenAI", fix=WAY_OUT)
    labels = json.dumps(grader["labels"])
    return {"type": "python", "name": name, "source": LABEL_SOURCE.format(labels=labels, field=json.dumps(field[1]))}
