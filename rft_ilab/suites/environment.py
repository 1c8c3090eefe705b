"""A suite as an environment, packaged or of the harness: which tasks a limit leaves, and who answers them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab.config import SkillSettings, SuiteSettings
from rft_ilab.rollouts import Environment
from rft_ilab.suites.naming import PREFIX
from rft_ilab.types import Grader, Policy, Skill, Task, digest

DATA = Path(__file__).parent / "data"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteEnvironment(Environment):
    """``answer_tokens``: about what an answer takes, since references do not tell.

    ``choices`` has, by task id, texts of which the likeliest is the answer; None where answers are written.
    """

    answer_tokens: int
    choices: Mapping[str, tuple[str, ...]] | None = None


def environment_of(
    skill: Skill,
    tasks: Sequence[Task],
    grader: Grader,
    settings: SuiteSettings,
    max_tokens: int,
    *,
    answer_tokens: int,
    demonstrations: int | None = None,
    choices: Mapping[str, tuple[str, ...]] | None = None,
) -> SuiteEnvironment:
    """What the gate measures. ``max_tokens`` is the suite's own, which the settings may replace.

    ``demonstrations`` are in the tasks' messages; None: as many as the settings say.
    """
    return SuiteEnvironment(
        skill=skill,
        tasks=tuple(tasks),
        grader=grader,
        settings=SkillSettings(
            tier=settings.tier,
            margin=settings.margin,
            max_tokens=settings.max_tokens or max_tokens,
            demonstrations=settings.demonstrations if demonstrations is None else demonstrations,
        ),
        classes=None,
        answer_tokens=min(answer_tokens, settings.max_tokens or max_tokens),
        choices=choices,
    )


def suite_skill(name: str, grader_digest: str, tier: Any) -> Skill:
    """A suite's demonstrations stand in its tasks' messages, so it has no seeds."""
    return Skill(
        name=PREFIX + name,
        directory=DATA,
        description="",
        seeds=(),
        grader={},
        grader_digest=grader_digest,
        tier=tier,
        commit="packaged",
    )


def group_of(row: Row) -> str:
    return str(row.get("group", row["id"]))


def selection_order(name: str, rows: Sequence[Row]) -> list[Row]:
    """All rows such that the first n are a sample of n: by content, spread over groups as they are large.

    Within a group sha256 decides; the groups then take turns, each at even distances over the whole. So a smaller limit
    tests a part of what a larger one tests, and no other.
    """
    keyed: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    for row in rows:
        keyed[group_of(row)].append((digest(["suite", name, row["id"], row["prompt"]]), row))
    placed = []
    for members in keyed.values():
        members.sort(key=lambda pair: pair[0])
        placed += [((rank + 0.5) / len(members), key, row) for rank, (key, row) in enumerate(members)]
    return [row for _, _, row in sorted(placed, key=lambda each: each[:2])]


def answering(policy: Policy, environment: Environment) -> Policy:
    """Who answers the tasks of an environment: the policy itself, or what chooses by its likelihoods.

    Raises PolicyError if likelihoods are needed of a policy that tells none.
    """
    if not isinstance(environment, SuiteEnvironment) or environment.choices is None:
        return policy
    from rft_ilab.suites.choosing import Chooser

    return Chooser(policy, environment.choices)
