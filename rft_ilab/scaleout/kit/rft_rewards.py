"""Rewards of rft-ilab's skills for TRL and verl: asks the grader server. Needs the standard library only.

Start the server where the taxonomy is (``ilab rft serve-graders``), and tell this file where that is:

RFT_GRADER_URL     default http://127.0.0.1:8790
RFT_GRADER_TOKEN   the bearer token, if the server wants one

``python rft_rewards.py preflight.json`` asks for two grades from here, before a run that would need them.

Right, wrong and error stay three things. Where a grader fails on one answer TRL gets None, so that the answer is left
out of the loss; verl has nothing of that kind and gets an exception. A server that does not answer, or one whose grader
is not the one of the export, stops the run: it never becomes a reward of 0.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8790"
BATCH = 256  # samples of one request; the server takes 4,096
TIMEOUT_S = 120.0
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # before each retry
MAX_ERROR_SHARE = 0.5  # of a batch; above it the grader is broken, not the answers


class GraderError(RuntimeError):
    """There are no rewards: the server does not answer, refuses, or its grader fails."""


def rft_reward(
    completions: Sequence[Any], label: Sequence[str], log_metric: Callable[..., None] | None = None, **_: Any
) -> list[float | None]:
    """TRL's ``reward_funcs``: one score in [0, 1] a completion, None where its grader failed. Raises GraderError."""
    results = grade(list(zip(label, map(_text, completions), strict=True)))
    errors = [result["error"] for result in results if result["error"] is not None]
    if len(errors) > MAX_ERROR_SHARE * len(results):
        raise GraderError(f"{len(errors)} of {len(results)} answers could not be graded; the first: {errors[0]}")
    if log_metric is not None and results:
        log_metric("rft/grader_errors", len(errors) / len(results))
    return [result["score"] for result in results]


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any
) -> dict[str, float]:
    """verl's ``custom_reward_function``: the score, and as ``acc`` whether the answer passes. Raises GraderError."""
    (result,) = grade([(ground_truth, solution_str)])
    if result["error"] is not None:
        raise GraderError(f"the grader failed on an answer: {result['error']}")
    return {"score": result["score"], "acc": float(result["passed"])}


def grade(pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """(label of the export, answer) -> ``{score, passed, error, reason}``, in order. Raises GraderError."""
    results: list[dict[str, Any]] = [{} for _ in pairs]
    skills: dict[tuple[str, str], list[tuple[int, Any, str]]] = {}
    for index, (label, answer) in enumerate(pairs):
        known = json.loads(label)
        skills.setdefault((known["skill"], known["grader_digest"]), []).append((index, known["item"], answer))
    for (skill, digest), samples in skills.items():
        for start in range(0, len(samples), BATCH):
            part = samples[start : start + BATCH]
            sent = [{"completion": answer, "item": item} for _, item, answer in part]
            said = _post("/v1/rft/grade", {"skill": skill, "samples": sent})
            if said["grader_digest"] != digest:
                raise GraderError(f"the grader of {skill} has changed since the export; export again")
            for (index, _, _), result in zip(part, said["results"], strict=True):
                results[index] = result
    return results


def _post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    url = os.environ.get("RFT_GRADER_URL", DEFAULT_URL).rstrip("/") + path
    headers = {"content-type": "application/json"}
    if token := os.environ.get("RFT_GRADER_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    # Straight to the server: a proxy of the environment would be sent the token.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    failure = ""
    for wait in (0.0, *WAITS_S):
        time.sleep(wait)
        try:
            with opener.open(request, timeout=TIMEOUT_S) as answer:
                said: dict[str, Any] = json.load(answer)
                return said
        except urllib.error.HTTPError as error:
            with error:
                failure = f"HTTP {error.code} {_message(error.read())}"
            if error.code < 500 and error.code not in (408, 429):
                break
        except (OSError, ValueError) as error:
            failure = str(error)
    raise GraderError(f"no grades from {url}: {failure}")


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _text(completion: Any) -> str:
    """A completion of TRL: a text, or a list of messages of which the last is the answer."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def preflight(tasks: Sequence[dict[str, str]]) -> None:
    """Grade every ``reference``, which must pass, and an empty answer, which must not. Raises GraderError."""
    for task in tasks:
        right, wrong = grade([(task["label"], task["reference"]), (task["label"], "")])
        for result, passes, what in ((right, True, "the reference"), (wrong, False, "an empty answer")):
            if result["passed"] is not passes:
                skill, why = json.loads(task["label"])["skill"], result["error"] or result["reason"]
                raise GraderError(f"the grader of {skill} does not do what it should with {what}: {why}")


def main(arguments: Sequence[str]) -> None:
    with open(arguments[0], encoding="utf-8") as file:
        tasks = json.load(file)
    try:
        preflight(tasks)
    except GraderError as error:
        sys.exit(f"preflight: {error}")
    print(f"preflight: the graders of {len(tasks)} skills answer")


if __name__ == "__main__":
    main(sys.argv[1:])
