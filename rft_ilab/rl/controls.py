"""Control arms: the same training with a reward that knows nothing of right and wrong.

Some models gain under almost any reward ("Spurious Rewards", arXiv 2506.10947), so a gain is credited to a grader only
if a control does not show it. Only GRPO's reward is replaced: data, warm start, signal check, validation, selection and
gate keep the real grader. What the real grader cannot grade stays an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from rft_ilab.errors import GraderError
from rft_ilab.rollouts import Environment
from rft_ilab.types import Grade, Grader, Rollout, Task, digest

Reward = Callable[[Grade], float]
REFERENCES = 8


class ControlGrader:
    """A grader whose scores are replaced by ``reward``; errors, answers and what else it says are kept."""

    def __init__(self, grader: Grader, name: str, reward: Reward) -> None:
        self._grader, self._name, self._reward = grader, name, reward
        self.digest = digest([grader.digest, name])

    def grade(self, pairs: Sequence[tuple[Task, Rollout]]) -> list[Grade]:
        return [g if g.error is not None else self._replaced(g) for g in self._grader.grade(pairs)]

    def _replaced(self, grade: Grade) -> Grade:
        score = self._reward(grade)
        reason = f"control {self._name}: {score:g}; the grader: {grade.score:g} {grade.reason}".rstrip()
        return replace(grade, score=score, passed=score == 1.0, reason=reason, grader_digest=self.digest)


def random_reward(mean: float, seed: int) -> Reward:
    """1 with chance ``mean``, else 0, by a hash of (seed, task, index of the completion in its group) alone."""

    def reward(grade: Grade) -> float:
        hashed = hashlib.sha256(f"control/{seed}/{grade.task_id}/{grade.index}".encode()).digest()
        return float(int.from_bytes(hashed[:8], "big") < mean * 2**64)

    return reward


def format_reward(grade: Grade) -> float:
    """1 if the grader found an answer to judge (``Grade.answer`` is not empty), right or wrong; else 0."""
    return float(bool(grade.answer))


def control_environment(environment: Environment, control: str, mean: float | None, seed: int) -> Environment:
    """The target as the control arm ``control`` (one of ``types.CONTROLS``) rewards it.

    ``mean`` is the mean reward that the real grader gave before GRPO; 0.5 stands in where it could not teach (0, 1 or
    unknown). Raises GraderError if ``control`` is ``format-only`` and the grader names no answer.
    """
    if control == "random-reward":
        chance = mean if mean is not None and 0.0 < mean < 1.0 else 0.5
        return replace(environment, grader=ControlGrader(environment.grader, control, random_reward(chance, seed)))
    refuse_without_format(environment)
    return replace(environment, grader=ControlGrader(environment.grader, control, format_reward))


def refuse_without_format(environment: Environment) -> None:
    """Raises GraderError unless the grader names the answers in the first references: else no format is known."""
    tasks = environment.split("train")[:REFERENCES]
    pairs = [
        (t, Rollout(task_id=t.id, index=0, policy_id="reference", completion=t.reference, stop="eos")) for t in tasks
    ]
    if any(grade.error is None and not grade.answer for grade in environment.grader.grade(pairs)):
        raise GraderError(
            f"{environment.skill.name}: the grader does not say what it takes for the answer, so there is no format",
            where=environment.skill.directory / "grader.json",
            fix="use --control random-reward",
        )
