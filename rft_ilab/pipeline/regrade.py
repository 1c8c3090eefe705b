"""What a change of graders alone makes of a run's gate: its answers come from the cache, no model is asked or loaded.

The last gate of a run noted the digest of every grader. Under the old digest the cache still has the old grades, under
the new one it gets the new ones; what differs is told, then the gate speaks again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.errors import RunError
from rft_ilab.pipeline.gate import regress
from rft_ilab.pipeline.gauge import VAL_TASKS, Gauge, Measurement, few_collections, greedy_sampling
from rft_ilab.pipeline.request import Request, Workspace, local_policy, run_model
from rft_ilab.pipeline.screen import Screen
from rft_ilab.pipeline.suites import suite_environments
from rft_ilab.rollouts import Environment, Graded, cached_grades, grade_groups, missing_groups, sample_groups
from rft_ilab.skills.tasks import build_prompts
from rft_ilab.store import Run
from rft_ilab.suites import answering
from rft_ilab.types import Grade, Policy

UNKNOWN = "no grade"


@dataclass(frozen=True, slots=True)
class Change:
    """One answer whose grade is another now. ``index`` 0 is the greedy answer, others were sampled."""

    model: str
    task_id: str
    index: int
    prompt: str
    completion: str
    before: str
    after: str
    before_reason: str
    after_reason: str


@dataclass(frozen=True, slots=True)
class Regraded:
    """A skill whose grader is another now. ``moves`` counts the grades that changed, by (before, after)."""

    skill: str
    answers: int
    moves: Mapping[tuple[str, str], int]
    examples: Sequence[Change]


@few_collections()
def regrade(
    request: Request, candidate: Path | None = None, *, command: str, examples: int, console: Console
) -> tuple[list[Regraded], dict[str, Any]]:
    """Grade the cached answers of a run's gate anew; the skills whose grader changed, and the new verdict.

    ``command`` is the one that samples answers, for whoever lacks some; ``examples`` is how many changes of a skill
    are shown. Raises RunError if an answer is missing.
    """
    space = Workspace(request)
    run = space.open_run()
    baseline = local_policy(request.model or Path(run.manifest.get("model") or space.model_directory))
    policy = local_policy(candidate if candidate is not None else run_model(run))
    gauge = Gauge(space, Screen(console))
    everything, asked = _suites(space, gauge, baseline, command)
    absent = gauge.missing(baseline, everything) + gauge.missing(policy, asked)
    _refuse_missing(sum(m.answers for m in absent), run.directory, command)
    then = graders_then(run)
    found = []
    for name, e in {m.suite.name: m.environment for m in everything}.items():
        if then.get(name) not in (None, e.grader.digest):
            mine = [("baseline", baseline, m) for m in everything if m.suite.name == name]
            mine += [("candidate", policy, m) for m in asked if m.suite.name == name]
            found.append(_regraded(space, e, then[name], mine, examples))
    return found, regress(request, candidate, console=console)


def graders_then(run: Run) -> Mapping[str, str]:
    """Digest of the grader of each skill when the run's gate spoke last, else when the run was started."""
    stages = run.manifest.get("stages", {})
    last = stages.get("regate") or stages.get("gate") or {}
    started = {name: facts.get("grader_digest") for name, facts in run.manifest.get("skills", {}).items()}
    return last.get("graders") or started


def _suites(
    space: Workspace, gauge: Gauge, baseline: Policy, command: str
) -> tuple[list[Measurement], list[Measurement]]:
    """What the gate asks of the baseline, and of the candidate."""
    targets = [
        [gauge.suite(e, demonstrations) for demonstrations in sorted({0, e.settings.demonstrations})]
        for e in space.targets
    ]
    absent = 0
    for e in space.watched:
        for demonstrations in {0, e.settings.demonstrations}:
            prompts = build_prompts(e.skill, e.validation(VAL_TASKS), demonstrations)
            absent += len(missing_groups(baseline, prompts, 1, greedy_sampling(e), space.cache))
    if absent:
        suites = [m for each in targets for m in each]
        absent += sum(m.answers for m in gauge.missing(baseline, suites))
    _refuse_missing(absent, space.request.run, command)
    watched = [gauge.suite(e, gauge.better_prompt(baseline, e)) for e in space.watched]
    watched += [gauge.suite(e, e.settings.demonstrations) for e in suite_environments(space)]
    return [m for each in targets for m in each] + watched, [each[0] for each in targets] + watched


def _refuse_missing(count: int, run: Path, command: str) -> None:
    if count:
        raise RunError(
            f"{count:,} answer{' of this gate is' if count == 1 else 's of this gate are'} not in the cache, and "
            "regrading asks no model",
            where=run,
            fix=f"make them with: {command}",
        )


def _regraded(
    space: Workspace, e: Environment, old: str, asked: Sequence[tuple[str, Policy, Measurement]], examples: int
) -> Regraded:
    moves: Counter[tuple[str, str]] = Counter()
    shown: list[Change] = []
    answers = 0
    for model, policy, m in asked:
        prompts = build_prompts(e.skill, m.tasks, m.suite.demonstrations)
        policy = answering(policy, e)
        groups = sample_groups(policy, prompts, 1, greedy_sampling(e), space.cache)
        if m.suite.samples:
            drawn = sample_groups(policy, prompts, m.suite.samples, m.suite.sampling, space.cache)
            groups = [first + more for first, more in zip(groups, drawn, strict=True)]
        graded = grade_groups(e.grader, m.tasks, groups, space.cache)
        for group, earlier in zip(graded, cached_grades(old, m.tasks, groups, space.cache), strict=True):
            answers += len(group)
            for index, (now, then) in enumerate(zip(group, earlier, strict=True)):
                move = _state(then), _state(now.grade)
                if move[0] != move[1]:
                    moves[move] += 1
                    if moves[move] <= examples:
                        shown.append(_change(model, index, now, then, *move))
    return Regraded(e.skill.name, answers, moves, _varied(shown, examples))


def _varied(changes: Sequence[Change], count: int) -> list[Change]:
    """The first of each kind of move before the second of any."""
    seen: Counter[tuple[str, str]] = Counter()
    ranked = []
    for change in changes:
        kind = change.before, change.after
        ranked.append((seen[kind], change))
        seen[kind] += 1
    return [change for _, change in sorted(ranked, key=lambda pair: pair[0])[:count]]


def _state(grade: Grade | None) -> str:
    if grade is None:
        return UNKNOWN
    return {True: "right", False: "wrong", None: "error"}[grade.passed]


def _change(model: str, index: int, now: Graded, then: Grade | None, before: str, after: str) -> Change:
    return Change(
        model=model,
        task_id=now.task.id,
        index=index,
        prompt=now.task.messages[-1].content,
        completion=now.rollout.completion,
        before=before,
        after=after,
        before_reason=then.reason if then else "it had no grade, or the cache has it no more",
        after_reason=now.grade.error or now.grade.reason,
    )
