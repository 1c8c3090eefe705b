"""What a process of a Ray cluster does for a gate: grade answers, sample a local model. Bytes of JSON in, bytes of JSON
out, so that nothing of ours is unpickled; knows nothing of Ray.

An error that a user can act on comes back as ``{"error": [class, line]}``; anything else is raised, as a bug is.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rft_ilab import __version__
from rft_ilab.errors import PolicyError, RftError, RunError
from rft_ilab.grading.engine import SkillGrader, grader_of
from rft_ilab.policy.local.lazy import LazyPolicy
from rft_ilab.types import Message, Prompt, Rollout, Sampling, Task


def answered(work: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    """``work`` on JSON, with the sender's version checked and errors as data."""

    @functools.wraps(work)
    def call(data: bytes) -> bytes:
        request = json.loads(data)
        try:
            if request["version"] != __version__:
                raise RunError(f"a worker has rft-ilab {__version__}, not {request['version']}", fix="install the same")
            result = {"result": work(request)}
        except RftError as error:
            result = {"error": [type(error).__name__, str(error)]}
        return json.dumps(result).encode()

    return call


@answered
def grade(request: Any) -> Any:
    """``{grader, digest, where, rows: [[task id, item, completion, stop]]}`` -> ``[[score, passed, answer, reason,
    error]]``. Python graders run in the sandbox of the worker's machine."""
    grader = _grader(json.dumps(request["grader"]), request["digest"], request["where"])
    pairs = [
        (
            Task(id=task_id, skill="", messages=(), reference="", item=item, group="", split="test"),
            Rollout(task_id=task_id, index=index, policy_id="", completion=completion, stop=stop),
        )
        for index, (task_id, item, completion, stop) in enumerate(request["rows"])
    ]
    return [[g.score, g.passed, g.answer, g.reason, g.error] for g in grader.grade(pairs)]


@answered
def sample(request: Any) -> Any:
    """``{directory, policy, n, sampling, prompts: [[task id, [[role, content]]]]}`` -> ``[[task id, index, completion,
    stop]]``."""
    policy = _policy(request["directory"], request["policy"])
    prompts = [
        Prompt(task_id=task_id, messages=tuple(Message(role, content) for role, content in messages))
        for task_id, messages in request["prompts"]
    ]
    rollouts = policy.sample(prompts, request["n"], Sampling(**request["sampling"]))
    return [[r.task_id, r.index, r.completion, r.stop] for r in rollouts]


@functools.lru_cache(maxsize=32)
def _grader(config: str, digest: str, where: str) -> SkillGrader:
    return grader_of(json.loads(config), digest, Path(where))


@functools.lru_cache(maxsize=1)  # two models need not fit into memory
def _policy(directory: str, policy_id: str) -> LazyPolicy:
    path = Path(directory)
    if not path.is_dir():
        raise PolicyError("a worker of the cluster has no such directory", where=path, fix="put it on a shared disk")
    policy = LazyPolicy(path)
    if policy.id != policy_id:
        raise PolicyError(f"is {policy.id} on a worker, {policy_id} here", where=path, fix="put it on a shared disk")
    return policy
