"""``POST /test_program``: rewards of an Open-Instruct that knows nothing of us, by ``--code_api_url
http://HOST:PORT/test_program``.

Its verifier ``code`` posts ``{"program", "tests", "max_execution_time"}``, takes the mean of ``results`` as the
score, and makes a silent 0 of everything that is not a 200. So the label
(:attr:`rft_ilab.synth.exports.ExportTask.label`) stands in ``tests``, as it was written, and an error of a grader,
which has no score, is an HTTP 500 and a line in the log of the server: the one place where it can be seen.

Not covered, since Open-Instruct does not send it: the whole completion (``program`` is its last fenced block, if it
has one), a token, and several completions in one request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from rft_ilab.errors import RftError
from rft_ilab.grading.engine import SkillGrader
from rft_ilab.scaleout.answers import BadRequest, grade
from rft_ilab.skills.reading import parse_json

PATH = "/test_program"
LOG = logging.getLogger(__name__)
FIELDS = ("skill", "grader_digest", "item")


class UnscoredError(RftError):
    """The grader failed, and here there is no way to say so but a failed request."""


def score_program(body: Mapping[str, Any], skills: Callable[[str], SkillGrader]) -> dict[str, Any]:
    """``{program, tests, max_execution_time}`` -> ``{results: [score], runtimes: [0.0]}``.

    Raises BadRequest, and UnscoredError where the grade is an error. Both are logged.
    """
    try:
        return {"results": [_score(body, skills)], "runtimes": [0.0]}
    except (BadRequest, RftError) as error:
        LOG.error("%s: Open-Instruct takes this for a reward of 0: %s", PATH, error)
        raise


def _score(body: Mapping[str, Any], skills: Callable[[str], SkillGrader]) -> float:
    label = body.get("tests")
    try:
        read = parse_json(label) if isinstance(label, str) else label
    except ValueError as error:
        raise BadRequest(f"tests is not a label of rft-ilab: {error}", "tests") from error
    if not isinstance(read, dict) or not set(FIELDS) <= set(read):
        raise BadRequest(f"tests is not a label of rft-ilab, an object with {', '.join(FIELDS)}", "tests")
    sample = {"completion": body.get("program"), "item": read["item"]}
    answer = grade({"skill": read["skill"], "samples": [sample]}, skills)
    if answer["grader_digest"] != read["grader_digest"]:
        raise BadRequest(f"the grader of {read['skill']} is another than when the tasks were exported", "tests")
    (result,) = answer["results"]
    if result["error"] is not None:
        raise UnscoredError(f"{read['skill']}: {result['error']}")
    return float(result["score"])
