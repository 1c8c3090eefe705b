"""What each route of the grader server answers: a JSON object in, a JSON object out. Knows nothing of HTTP.

``validate`` and ``run`` have the shapes of OpenAI's ``/v1/fine_tuning/alpha/graders``. There an error of a sample is
reward 0 and a flag under ``metadata.errors``; that is OpenAI's way and only theirs: ``grade``, our own batch route,
keeps an error apart from a score, as everywhere in this package.

Where we differ: a ``score_model`` inside its range is mapped to [0, 1] and never clamped; a grader that does not
build is a bad request, not a flag; ``sample_parse_error``, ``truncated_observation_error`` and
``unresponsive_reward_error`` are never set, since an answer that is malformed or too long is wrong here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.config import load_settings
from rft_ilab.errors import GraderError, SandboxError, SkillError
from rft_ilab.grading.checks.judge import REFUSED, SPENT, UNANSWERED, UNREADABLE
from rft_ilab.grading.engine import SkillGrader, build_grader, grader_of
from rft_ilab.grading.multi import MultiCheck
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.template import NO_FIELD
from rft_ilab.skills.tree import load_skill
from rft_ilab.types import Grade, Rollout, Task

MAX_SAMPLES = 4096
FLAGS = (
    "formula_parse_error", "sample_parse_error", "truncated_observation_error", "unresponsive_reward_error",
    "invalid_variable_error", "other_error", "python_grader_server_error", "python_grader_runtime_error",
    UNANSWERED, REFUSED, UNREADABLE,
)  # fmt: skip
DETAILS = ("python_grader_server_error_type", "python_grader_runtime_error_details", f"{UNANSWERED}_details")
ADDRESSES = ("endpoint", "url", "base_url")
# Graders that wait for nothing, and whose time grows with the length of a text alone: 8 kB take some milliseconds.
QUICK = ("string_check", "label", "number", "date", "json_fields", "set_f1", "text_match")
QUICK_FIELDS = 4  # more in its templates would multiply the text


class BadRequest(Exception):
    """The request cannot be answered; ``param`` is the field to blame."""

    def __init__(self, what: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(what)


def validate(body: Mapping[str, Any]) -> dict[str, Any]:
    """``{grader}`` -> ``{grader}``. Raises BadRequest if it does not build."""
    stranger(_grader(body))
    return {"grader": body["grader"]}


def run(body: Mapping[str, Any]) -> dict[str, Any]:
    """``{grader, model_sample, item?}`` -> OpenAI's result of a run. Raises BadRequest."""
    config = _grader(body)
    text, item = _text(body, "model_sample"), _item(body)
    whole = stranger(config)
    flags: dict[str, Any] = {**dict.fromkeys(FLAGS, False), **dict.fromkeys(DETAILS)}
    spent: list[tuple[str, Mapping[str, int]]] = []
    watched, start = SPENT.set(spent), time.monotonic()
    try:
        if parts := _parts(config):
            grades = {name: _one(stranger(part), text, item) for name, part in parts.items()}
            reward = _combined(config["calculate_output"], grades, Sample(text, item), flags)
            for name, grade in grades.items():
                _flag(flags, parts[name]["type"], grade.error)
        else:
            grades, grade = {}, _one(whole, text, item)
            reward = grade.score
            _flag(flags, config["type"], grade.error)
    except SandboxError as error:
        grades, reward = {}, None
        flags |= {"python_grader_server_error": True, "python_grader_server_error_type": type(error).__name__}
        flags["python_grader_runtime_error_details"] = error.what
    finally:
        SPENT.reset(watched)
    scores = {name: grade.score or 0.0 for name, grade in grades.items()}
    usage = _usage(spent)
    return {
        "reward": reward or 0.0,
        "metadata": {
            "name": config.get("name", ""),
            "type": config["type"],
            "errors": flags,
            "execution_time": time.monotonic() - start,
            "scores": scores,
            "token_usage": sum(tokens.get("total_tokens", 0) for tokens in usage.values()) if usage else None,
            "sampled_model_name": spent[-1][0] if spent else None,
        },
        "sub_rewards": scores,
        "model_grader_token_usage_per_model": usage,
    }


def is_quick(body: Mapping[str, Any], skills: Skills) -> bool:
    """Whether the grader is one whose answer costs less than handing the work to a thread does."""
    config = skills.known(body["skill"]) if isinstance(body.get("skill"), str) else body.get("grader")
    if not isinstance(config, Mapping) or config.get("type") not in QUICK:
        return False
    return sum(value.count("{{") for value in config.values() if isinstance(value, str)) <= QUICK_FIELDS


def lane_of(body: Mapping[str, Any]) -> str:
    """What requests have in common that may be slow together: their grader."""
    return json.dumps([body.get("skill"), body.get("grader")], sort_keys=True)


def grade(body: Mapping[str, Any], skills: Callable[[str], SkillGrader]) -> dict[str, Any]:
    """``{grader | skill, samples: [{completion, item?}]}`` -> one result a sample, in order. Raises BadRequest."""
    if unknown := set(body) - {"grader", "skill", "samples"}:
        raise BadRequest(f"unknown field {min(unknown)!r}", min(unknown))
    if ("grader" in body) == ("skill" in body):
        raise BadRequest("name either a grader or a skill", "grader")
    samples = body.get("samples")
    if not isinstance(samples, list) or not all(isinstance(sample, dict) for sample in samples):
        raise BadRequest("samples must be a list of objects", "samples")
    if len(samples) > MAX_SAMPLES:
        raise BadRequest(f"more than {MAX_SAMPLES} samples in one request", "samples")
    pairs = [_pair(index, _text(sample, "completion"), _item(sample)) for index, sample in enumerate(samples)]
    grader = skills(_text(body, "skill")) if "skill" in body else stranger(_grader(body))
    results = [
        {"score": result.score, "passed": result.passed, "error": result.error, "reason": result.reason}
        for result in grader.grade(pairs)
    ]
    return {"results": results, "grader_digest": grader.digest}


def stranger(config: Mapping[str, Any]) -> SkillGrader:
    """The one place where a grader that came over HTTP is built. Raises BadRequest.

    Whoever sent it is not trusted: Python source runs in the sandbox only, and no grader may name an address, or
    the server would send requests (and its key) wherever a client likes. Graders of skills may.
    """
    for part in [config, *_parts(config).values()]:
        if isinstance(part, Mapping) and (part.get("type") == "endpoint" or set(ADDRESSES) & set(part)):
            raise BadRequest(
                "a grader that comes over HTTP may not name an address: use a skill of the server, or "
                "RFT_JUDGE_ENDPOINT in its environment",
                "grader",
            )
    try:
        return _built(json.dumps(config))
    except GraderError as error:
        raise BadRequest(error.what + (f" ({error.fix})" if error.fix else ""), "grader") from error


@functools.lru_cache(maxsize=64)
def _built(text: str) -> SkillGrader:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return grader_of(json.loads(text), digest, Path("grader"), trusted=False)


class Skills:
    """Graders of a taxonomy by the name of their skill, each read once. Raises BadRequest."""

    def __init__(self, taxonomy: Path | None) -> None:
        self._taxonomy = taxonomy
        self._read: dict[str, tuple[Mapping[str, Any], SkillGrader]] = {}

    def __call__(self, name: str) -> SkillGrader:
        if found := self._read.get(name):
            return found[1]
        if self._taxonomy is None or not self._taxonomy.is_dir():
            raise BadRequest("this server has no taxonomy, so it knows no skills", "skill")
        try:
            skill = load_skill(self._taxonomy, name, load_settings(self._taxonomy))
            grader = build_grader(skill)
        except (SkillError, GraderError) as error:
            raise BadRequest(str(error), "skill") from error
        self._read[name] = skill.grader, grader
        return grader

    def known(self, name: str) -> Mapping[str, Any] | None:
        """The grader's object of a skill that has been read."""
        found = self._read.get(name)
        return found[0] if found else None


def _grader(body: Mapping[str, Any]) -> Mapping[str, Any]:
    config = body.get("grader")
    if not isinstance(config, dict):
        raise BadRequest("grader must be an object", "grader")
    return config


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise BadRequest(f"{key} must be a text", key)
    return value


def _item(body: Mapping[str, Any]) -> Mapping[str, Any]:
    item = body.get("item")
    if item is not None and not isinstance(item, dict):
        raise BadRequest("item must be an object", "item")
    return item or {}


def _parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The graders inside a multi, by name; none for any other type."""
    graders = config.get("graders") if config.get("type") == "multi" else None
    if isinstance(graders, list):
        return {str(part.get("name")) if isinstance(part, Mapping) else "": part for part in graders}
    return dict(graders) if isinstance(graders, Mapping) else {}


def _pair(index: int, text: str, item: Mapping[str, Any]) -> tuple[Task, Rollout]:
    task = Task(id="http", skill="", messages=(), reference="", item=item, group="", split="test")
    return task, Rollout(task_id=task.id, index=index, policy_id="http", completion=text, stop="eos")


def _one(grader: SkillGrader, text: str, item: Mapping[str, Any]) -> Grade:
    (result,) = grader.grade([_pair(0, text, item)])
    return result


class _Known:
    """A check that has already been made."""

    def __init__(self, grade: Grade) -> None:
        self._mark = Mark(grade.score, grade.answer, grade.reason, grade.error)

    def mark(self, samples: Sequence[Sample]) -> list[Mark]:
        return [self._mark] * len(samples)


def _combined(formula: str, grades: Mapping[str, Grade], sample: Sample, flags: dict[str, Any]) -> float | None:
    (mark,) = MultiCheck({name: _Known(grade) for name, grade in grades.items()}, formula).mark([sample])
    flags["formula_parse_error"] = mark.error is not None and all(grade.error is None for grade in grades.values())
    return mark.score


def _flag(flags: dict[str, Any], kind: str, error: str | None) -> None:
    """Set the flag that OpenAI has for an error, and its details where there is a place for them."""
    if error is None:
        return
    begin, _, rest = error.partition(": ")
    if kind == "python":
        flags |= {"python_grader_runtime_error": True, "python_grader_runtime_error_details": error}
    elif begin in (REFUSED, UNREADABLE, UNANSWERED):
        flags[begin] = True
        if begin == UNANSWERED:
            flags[f"{UNANSWERED}_details"] = rest
    else:
        flags["invalid_variable_error" if error.startswith(NO_FIELD) else "other_error"] = True


def _usage(spent: Sequence[tuple[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    usage: dict[str, dict[str, int]] = {}
    for model, tokens in spent:
        mine = usage.setdefault(model, {})
        for name, count in tokens.items():
            mine[name] = mine.get(name, 0) + count
    return usage
