"""A grader and a local policy that work on a Ray cluster, under the names they have here.

What comes back is what this process would have said: tasks hold as many samples as a child of the sandbox, and as many
prompts as are handed to a policy here, so that everything is computed in the same batches.

Graders that cost less than sending the answer does (:data:`rft_ilab.scaleout.answers.QUICK`), and those that ask a
server themselves, are left where they are. Not covered: suites' own graders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rft_ilab.grading.proof.prove import REMOTE, has_part
from rft_ilab.grading.sandbox import Limits
from rft_ilab.policy.local.lazy import LazyPolicy
from rft_ilab.rollouts import SAVE_EVERY
from rft_ilab.scaleout import ray_work
from rft_ilab.scaleout.answers import QUICK
from rft_ilab.scaleout.ray_cluster import RayCluster
from rft_ilab.types import Grade, Grader, Prompt, Rollout, Sampling, Skill, Task

ROWS = Limits().batch


class RayGrader:
    """The grader of a skill, on a cluster. ``digest`` is its own: grades are cached as if they were made here."""

    def __init__(self, cluster: RayCluster, skill: Skill) -> None:
        self.digest = skill.grader_digest
        self._cluster = cluster
        self._head = {
            "grader": dict(skill.grader), "digest": self.digest, "where": str(skill.directory / "grader.json"),
        }  # fmt: skip

    def grade(self, pairs: Sequence[tuple[Task, Rollout]]) -> list[Grade]:
        """One grade for each pair, in order. Raises SandboxError as a local grader does, and RunError."""
        rows = [[task.id, dict(task.item), rollout.completion, rollout.stop] for task, rollout in pairs]
        requests = ({**self._head, "rows": rows[start : start + ROWS]} for start in range(0, len(rows), ROWS))
        said = [row for part in self._cluster.map(ray_work.grade, requests) for row in part]
        return [
            Grade(
                task_id=rollout.task_id,
                index=rollout.index,
                policy_id=rollout.policy_id,
                score=score,
                passed=passed,
                answer=answer,
                reason=reason,
                error=error,
                grader_digest=self.digest,
            )
            for (_, rollout), (score, passed, answer, reason, error) in zip(pairs, said, strict=True)
        ]


def spread_grader(cluster: RayCluster, skill: Skill, grader: Grader) -> Grader:
    """The grader, on the cluster if that can be faster."""
    if skill.grader.get("type") in QUICK or has_part(skill.grader, REMOTE):
        return grader
    return RayGrader(cluster, skill)


class RayPolicy:
    """A local model, sampled on a cluster whose nodes see its directory.

    ``window`` is how many prompts keep the cluster busy, see :func:`rft_ilab.rollouts.sample_groups`.
    Rollouts carry neither token ids nor log-probabilities: evaluation needs none.
    """

    def __init__(self, cluster: RayCluster, local: LazyPolicy) -> None:
        self.id, self.directory = local.id, local.directory
        self.window = SAVE_EVERY * cluster.cpus
        self._cluster, self._local = cluster, local

    @property
    def loaded(self) -> Any:
        """The model in this process, for what is not sampling."""
        return self._local.loaded

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]:
        """``n`` rollouts of every prompt, in order. Raises PolicyError and RunError."""
        head = {"directory": str(self.directory.absolute()), "policy": self.id, "n": n}
        head["sampling"] = dataclasses.asdict(sampling)
        rows = [[p.task_id, [[m.role, m.content] for m in p.messages]] for p in prompts]
        requests = ({**head, "prompts": rows[start : start + SAVE_EVERY]} for start in range(0, len(rows), SAVE_EVERY))
        for part in self._cluster.map(ray_work.sample, requests):
            for task_id, index, completion, stop in part:
                yield Rollout(task_id=task_id, index=index, policy_id=self.id, completion=completion, stop=stop)
