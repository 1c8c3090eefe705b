"""Any text task of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness) as a suite.

lm_eval makes the prompts (as chats) and scores the answers, in a process of its own (:mod:`.harness_child`); our
policies answer. The score is the task's first metric that is a mean over its tasks, after its first filter. Tasks of
type ``multiple_choice`` and ``loglikelihood`` are answered with the likelihood of each choice after the chat's prompt.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rft_ilab.config import SuiteSettings
from rft_ilab.errors import SandboxError, SkillError
from rft_ilab.grading.sample import ascii_safe
from rft_ilab.suites.environment import SuiteEnvironment, environment_of, selection_order, suite_skill
from rft_ilab.suites.naming import HARNESS, PREFIX
from rft_ilab.types import Grade, Message, Rollout, Task, digest

CHILD = Path(__file__).parent / "harness_child.py"
LOAD_SECONDS = 3600.0  # a data set may have to be downloaded
SCORE_SECONDS = 30.0
MAX_ANSWER = 100_000
# What people see of an answer that was extracted, and what an unwritten one is estimated to take.
MAX_SHOWN, ANSWER_SHARE = 200, 0.5


class Child:
    """The process that runs one task of lm_eval; started anew when an answer was too much for it."""

    def __init__(self, task: str, include: Path | None, fewshot: int) -> None:
        self._include = include.resolve() if include else None
        self._job = {"task": task, "include": self._include and str(self._include), "fewshot": fewshot}
        self._process: subprocess.Popen[bytes] | None = None
        # Data sets and metrics are looked for in the working directory first, and code there would be run: so it is an
        # empty one, or the one that is trusted.
        self._empty = tempfile.TemporaryDirectory(prefix="lm-eval-", ignore_cleanup_errors=True)
        atexit.register(self.close)

    def load(self) -> dict[str, Any]:
        """What lm_eval says of the task. Raises SandboxError if it does not start or end."""
        self.close()
        command = [sys.executable, "-I", "-B", str(CHILD)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self._include or self._empty.name,
                start_new_session=True,
            )
            return self._exchange(self._job, LOAD_SECONDS)
        except OSError as error:
            self.close()
            raise SandboxError(f"lm_eval does not run: {error}") from error

    def score(self, doc: int, answer: str) -> dict[str, Any]:
        """``score`` and ``answer``, or ``error``."""
        if self._process is None:
            self.load()
        try:
            return self._exchange({"doc": doc, "answer": answer}, SCORE_SECONDS)
        except OSError as error:
            self.close()
            return {"error": f"lm_eval did not score it: {error}"}

    def _exchange(self, job: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send one line, read one line. Raises OSError (TimeoutError included) when the child does not answer."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        deadline, pieces = time.monotonic() + seconds, list[bytes]()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not pieces or not pieces[-1].endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"no answer in {seconds:g} s")
                piece = os.read(process.stdout.fileno(), 1 << 20)
                if not piece:
                    raise OSError("it ended")
                pieces.append(piece)
        told: dict[str, Any] = json.loads(b"".join(pieces))
        return told

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


class HarnessGrader:
    """Scores by lm_eval (implements :class:`rft_ilab.types.Grader`); passed is a score of 1."""

    def __init__(self, child: Child, grader_digest: str) -> None:
        self._child, self.digest = child, grader_digest

    def grade(self, pairs: Sequence[tuple[Task, Rollout]]) -> list[Grade]:
        """One grade for each pair, in order. Raises SandboxError if lm_eval cannot be started."""
        return [self._one(task, rollout) for task, rollout in pairs]

    def _one(self, task: Task, rollout: Rollout) -> Grade:
        told: dict[str, Any] = {"score": 0.0, "answer": "", "reason": f"longer than {MAX_ANSWER} characters"}
        if len(rollout.completion) <= MAX_ANSWER:
            told = self._child.score(task.item["doc"], rollout.completion)
        error, score = told.get("error"), told.get("score")
        if error is None and not (isinstance(score, float) and math.isfinite(score) and 0 <= score <= 1):
            error = f"{task.item['metric']} {score!r} is not a number from 0 to 1"
        passed = None if error is not None else score == 1.0
        said = "" if error is not None else "right" if passed else f"{task.item['metric']} {score:g}"
        return Grade(
            task_id=task.id,
            index=rollout.index,
            policy_id=rollout.policy_id,
            score=None if error is not None else score,
            passed=passed,
            answer=None if error is not None else ascii_safe(str(told.get("answer", "")))[:MAX_SHOWN],
            reason=told.get("reason", said),
            error=None if error is None else ascii_safe(error),
            grader_digest=self.digest,
        )


def load_task(name: str, settings: SuiteSettings, include: Path | None) -> SuiteEnvironment:
    """The task ``name`` of lm_eval. Demonstrations 0 are as many as the task itself wants.

    Raises SkillError in one line: lm_eval is missing, has no such task, or the task cannot be asked here.
    """
    where = PREFIX + HARNESS + name
    if find_spec("lm_eval") is None:
        raise SkillError("needs lm-evaluation-harness", where=where, fix="pip install lm_eval==0.4.13")
    child = Child(name, include, settings.demonstrations)
    told = child.load()
    if "refused" in told:
        raise SkillError(told["refused"], where=where)
    if "error" in told:
        fix = "its data set must be in the cache, or the hub in reach (HF_HUB_OFFLINE)"
        raise SkillError(f"lm_eval cannot load it: {told['error']}", where=where, fix=fix)
    about = {key: told[key] for key in ("version", "config", "metric", "filter", "fewshot")}
    skill = suite_skill(HARNESS + name, digest([name, about]), settings.tier)
    rows = [{**row, "id": row["content"], "prompt": json.dumps(row["messages"])} for row in told["rows"]]
    chosen = selection_order(HARNESS + name, rows)[: settings.limit or len(rows)]
    tasks = {_task(skill.name, row, told["metric"]): row for row in chosen}
    written = "choices" not in chosen[0]
    return environment_of(
        skill,
        sorted(tasks, key=lambda task: task.id),
        HarnessGrader(child, skill.grader_digest),
        settings,
        told["max_tokens"],
        answer_tokens=int(ANSWER_SHARE * told["max_tokens"]) if written else _longest(chosen),
        demonstrations=told["fewshot"],
        choices=None if written else {task.id: tuple(row["choices"]) for task, row in tasks.items()},
    )


def _task(skill: str, row: Mapping[str, Any], metric: str) -> Task:
    messages = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
    return Task(
        # Its place, too: a set may have the same row twice.
        id=digest([skill, row["doc"], row["content"], row["messages"], row.get("choices")]),
        skill=skill,
        messages=messages,
        reference=row["reference"],
        item={"doc": row["doc"], "content": row["content"], "metric": metric, "reference": row["reference"]},
        group=row["content"],
        split="test",
    )


def _longest(rows: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of all choices of a task, roughly: each is read once."""
    return max(sum(len(choice) for choice in row["choices"]) for row in rows) // 4 + 1
