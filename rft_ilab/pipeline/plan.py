"""What the gate could show with the test tasks that a taxonomy has. No model; all is planned, nothing measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab.config import Settings
from rft_ilab.regress import power
from rft_ilab.regress.power import Assumption
from rft_ilab.report.verdict import parse_verdict
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import find_skills
from rft_ilab.store import read_json
from rft_ilab.types import Skill, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillPlan:
    """One skill. ``asked``: the margin of a watched skill, ``min_gain`` of a target (fractions of 1).

    ``chance``: of PASS if nothing changed (a target: if it gained what is asked). ``detectable``: smallest loss that is
    a FAIL (a target: smallest gain that is a PASS) with the planned power; None if none is. ``needed``: tasks for
    ``chance`` to be the planned power, in groups as large as today's; None beyond a million.
    """

    skill: str
    tier: Tier
    tasks: int
    groups: int
    discordance: float
    measured: bool
    asked: float
    chance: float
    detectable: float | None
    needed: int | None

    @property
    def lacking(self) -> int | None:
        return None if self.needed is None else max(self.needed - self.tasks, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the planner is told: the power, the share of tasks that flip though nothing changed, their ICC in groups."""

    power: float
    discordance: float
    icc: float


def plan(taxonomy: Path, settings: Settings, wish: Wish, verdict: Path | None = None) -> list[SkillPlan]:
    """A row a skill, targets first. ``verdict``: a file to take measured discordances from.

    Raises SkillError for a broken taxonomy and RunError for a broken verdict.
    """
    skills = sorted(find_skills(taxonomy, settings), key=lambda skill: (skill.tier != "target", skill.name))
    suites = max(sum(skill.tier not in ("target", "advisory") for skill in skills), 1)
    measured = _measured(verdict) if verdict else {}
    rows = []
    for skill in skills:
        rows.append(
            plan_skill(skill, settings, wish, measured.get(skill.name), 1 if skill.tier == "advisory" else suites)
        )
    return rows


def plan_skill(
    skill: Skill, settings: Settings, wish: Wish, measured: float | None = None, suites: int = 1
) -> SkillPlan:
    """One row: a skill with its tier, judged among ``suites`` watched ones. ``measured``: its discordance, if known."""
    sizes = list(Counter(task.group for task in load_tasks(skill) if task.split == "test").values())
    own = settings.skill(skill.name).margin
    asked = settings.gate.min_gain if skill.tier == "target" else settings.gate.margin if own is None else own
    discordance = wish.discordance if measured is None else measured
    return _row(
        skill.name,
        skill.tier,
        sizes,
        asked,
        Assumption(discordance=discordance, icc=wish.icc, sizes=tuple(sizes) or (1,)),
        measured is not None,
        settings.gate.alpha,
        wish.power,
        suites,
    )


def _row(
    skill: str,
    tier: Tier,
    sizes: Sequence[int],
    asked: float,
    a: Assumption,
    measured: bool,
    alpha: float,
    wanted: float,
    suites: int,
) -> SkillPlan:
    tasks = sum(sizes)
    if tier == "target":
        chance = power.power_to_gain(tasks, a, asked, alpha) if tasks else 0.0
        detectable = power.detectable_gain(tasks, a, alpha, wanted) if tasks else None
        needed = power.tasks_to_gain(a, asked, alpha, wanted)
    else:
        chance = power.power_to_pass(tasks, a, asked, alpha, suites) if tasks else 0.0
        detectable = power.detectable_loss(tasks, a, asked, alpha, wanted, suites) if tasks else None
        needed = power.tasks_to_pass(a, asked, alpha, wanted, suites)
    return SkillPlan(
        skill=skill,
        tier=tier,
        tasks=tasks,
        groups=len(sizes),
        discordance=a.discordance,
        measured=measured,
        asked=asked,
        chance=chance,
        detectable=detectable,
        needed=needed,
    )


def _measured(verdict: Path) -> Mapping[str, float]:
    """Twice the smaller of the flips up and down, and half a flip each way for those that never showed."""
    found = parse_verdict(read_json(verdict), verdict)
    return {
        row.skill: min((2 * min(row.better, row.worse) + 1) / row.n, 1.0)
        for row in found.watched
        if row.n and row.better is not None and row.worse is not None
    }


def as_json(rows: Sequence[SkillPlan], wish: Wish, alpha: float) -> dict[str, Any]:
    """The plan for programs; fractions of 1, None where there is no number."""
    return {
        "planned": True,
        "alpha": alpha,
        "power": wish.power,
        "icc": wish.icc,
        "skills": [
            {
                "skill": row.skill,
                "tier": row.tier,
                "tasks": row.tasks,
                "groups": row.groups,
                "discordance": round(row.discordance, 4),
                "discordance_measured": row.measured,
                "asked": row.asked,
                "chance": round(row.chance, 4),
                "detectable": None if row.detectable is None else round(row.detectable, 4),
                "tasks_needed": row.needed,
                "tasks_lacking": row.lacking,
            }
            for row in rows
        ],
    }
