"""Why did one test task come out as it did? From the results of the gate and the cache, or generated afresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rft_ilab.config import load_settings
from rft_ilab.errors import RunError
from rft_ilab.grading.engine import build_grader
from rft_ilab.pipeline.request import local_policy
from rft_ilab.pipeline.suites import suite_of
from rft_ilab.regress.verdict import Answer
from rft_ilab.report.explained import Again, Explanation, Graded, Seen
from rft_ilab.results import FILE, Result, read_results
from rft_ilab.rollouts import Environment, grade_groups, missing_groups, sample_groups
from rft_ilab.skills.tasks import build_prompt, load_tasks
from rft_ilab.skills.tree import find_skills
from rft_ilab.store import Cache, Run, read_json, user_directory
from rft_ilab.types import Message, Policy, Prompt, Rollout, Sampling, Task

NO_TASK = "the task is not in this taxonomy: demonstrations, system message and draws cannot be shown"
NO_DRAWS = "the text of the draws is no longer in the cache; --again draws anew"
STORED = "the baseline's results are stored in the repository; its model is not asked again"
NO_REASON = "none was stored with this answer"
REGRADED = "the grader of today grades the draws otherwise than the gate did; what the gate said is shown"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task is found again: its environment in the taxonomy, and the task; the cache of generations."""

    environment: Environment
    task: Task
    cache: Cache


def explain(run: Path, prefix: str, taxonomy: Path, *, again: bool = False) -> Explanation:
    """The test task whose id begins with ``prefix``, as the last gate of ``run`` judged it.

    Asks no model unless ``again``; what is no longer in ``taxonomy`` or the cache is left out, with a note. Raises
    RunError if there are no results, or no such task, or more than one; PolicyError if ``again`` finds no model.
    """
    verdict = read_json(run / "gate" / "verdict.json")
    results = _results_of_task(run.joinpath(*FILE), prefix)
    after = next((r for r in results if r.side == "candidate"), None)
    befores = [r for r in results if r.side == "baseline"]
    if after is None or not befores:
        raise RunError(
            f"task {results[0].task_id[:12]} has results of one model only",
            where=run.joinpath(*FILE),
            fix="judge again with: ilab model regress",
        )
    label = _compared_prompt(verdict, after.suite)
    befores.sort(key=lambda r: prompt_label(r) != label)
    place = _place(taxonomy, after)
    notes = [] if place else [f"{taxonomy}: {NO_TASK}"]
    seens = [_seen(r, place, notes) for r in (*befores, after)]
    if again:
        if place is None:
            raise RunError("the task is not in this taxonomy", where=taxonomy, fix="name another with --taxonomy-path")
        seens = _asked_again(verdict, [*befores, after], seens, place, notes)
    *before, now = seens
    return Explanation(
        skill=after.suite,
        tier=after.tier,
        task_id=after.task_id,
        group=after.group,
        cls=after.cls,
        messages=place.task.messages if place else (Message("user", after.prompt),),
        reference=after.reference,
        before=before[0],
        after=now,
        others=tuple(before[1:]),
        notes=tuple(dict.fromkeys(notes)),
    )


def prompt_label(result: Result) -> str:
    return f"{result.demonstrations} demonstrations" if result.demonstrations else "zero-shot"


def recorded_taxonomy(run: Path) -> Path | None:
    """The taxonomy that the last gate of the run read, if the run says so and it is still there."""
    stages = Run.open(run).manifest.get("stages", {})
    facts = stages.get("regate") or stages.get("gate") or {}
    path = Path(facts["taxonomy"]) if isinstance(facts.get("taxonomy"), str) else None
    return path if path and path.is_dir() else None


def _results_of_task(path: Path, prefix: str) -> list[Result]:
    """All lines of the one task whose id begins with ``prefix``. Raises RunError unless it is one."""
    found = [result for result in read_results(path, f'"{prefix}') if result.task_id.startswith(prefix)]
    tasks = {result.task_id: result.suite for result in found}
    if len(tasks) == 1:
        return found
    if not tasks:
        raise RunError(
            f"no test task begins with {prefix!r}", where=path, fix="ilab rft explain without a task lists the flips"
        )
    some = ", ".join(f"{task_id[:12]} ({suite})" for task_id, suite in sorted(tasks.items())[:4])
    raise RunError(f"{len(tasks)} tasks begin with {prefix!r}: {some}", where=path, fix="give more digits")


def _compared_prompt(verdict: Any, skill: str) -> str:
    """Under which prompt the verdict took the baseline's greedy answers."""
    for row in verdict.get("targets", []):
        if row.get("skill") == skill:
            return str(row.get("greedy", {}).get("before_prompt", ""))
    return ""


def _place(taxonomy: Path, result: Result) -> Place | None:
    """None if the taxonomy, the skill or the task is gone. Raises SkillError if the skill is there but broken."""
    if not (taxonomy / "compositional_skills").is_dir():
        return None
    settings = load_settings(taxonomy)
    skill = next((s for s in find_skills(taxonomy, settings) if s.name == result.suite), None)
    environment: Environment | None
    if skill is None:
        environment = suite_of(result.suite, settings, result.demonstrations)
    else:
        environment = Environment.of(skill, load_tasks(skill), build_grader(skill), settings.skill(skill.name))
    if environment is None:
        return None
    task = next((task for task in environment.tasks if task.id == result.task_id), None)
    return None if task is None else Place(environment, task, Cache(user_directory("cache") / "results.sqlite"))


def _prompt(place: Place, result: Result) -> Prompt:
    return build_prompt(place.environment.skill, place.task, result.demonstrations)


def _seen(result: Result, place: Place | None, notes: list[str]) -> Seen:
    drawn = _draws(result, place, notes)
    draws = tuple(
        Graded(text=None, score=score) if graded is None else replace(graded, score=score)
        for score, graded in zip(result.sampled, drawn, strict=True)
    )
    own = len(place.task.messages) if place else 0
    messages = _prompt(place, result).messages if place else ()
    return Seen(
        title="Before, the baseline" if result.side == "baseline" else "Now, the candidate",
        prompt=prompt_label(result),
        turns=messages[1 : len(messages) - own + 1],
        greedy=_greedy(result, place),
        draws=draws,
        temperature=result.temperature,
    )


def _greedy(result: Result, place: Place | None) -> Graded:
    """The greedy answer; one that came without a reason, as a stored baseline's do, is graded anew to have one."""
    seen = _graded(result.greedy)
    if place is None or seen.reason or seen.score is None:
        return seen
    rollout = Rollout(task_id=result.task_id, index=0, policy_id=result.model, completion=seen.text or "", stop="eos")
    (again,) = _grade(place, [rollout], None)
    if again.score != seen.score or not again.reason:
        return replace(seen, reason=NO_REASON)
    return replace(seen, answer=again.answer if seen.answer is None else seen.answer, reason=again.reason)


def _graded(answer: Answer) -> Graded:
    return Graded(text=answer.text, score=answer.score, answer=answer.answer, reason=answer.reason)


def _draws(result: Result, place: Place | None, notes: list[str]) -> Sequence[Graded | None]:
    """The draws of a result with their texts, as far as the cache still has them. No model is asked."""
    n = len(result.sampled)
    if not n or place is None:
        return [None] * n
    prompts, policy = [_prompt(place, result)], _Remembered(result.model)
    if missing_groups(policy, prompts, n, result.draws_sampling, place.cache):
        notes.append(NO_DRAWS)
        return [None] * n
    groups = sample_groups(policy, prompts, n, result.draws_sampling, place.cache)
    graded = _grade(place, groups[0], place.cache)
    if [g.score for g in graded] != list(result.sampled):
        notes.append(REGRADED)
    return graded


def _grade(place: Place, rollouts: Sequence[Rollout], cache: Cache | None) -> list[Graded]:
    """Grades as the gate counts them: 1 for right, 0 for wrong, None where the grader failed."""
    (graded,) = grade_groups(place.environment.grader, [place.task], [rollouts], cache)
    return [
        Graded(
            text=g.rollout.completion,
            score=None if g.grade.passed is None else float(g.grade.passed),
            answer=g.grade.answer,
            reason=g.grade.error or g.grade.reason,
        )
        for g in graded
    ]


def _asked_again(
    verdict: Any, results: Sequence[Result], seens: Sequence[Seen], place: Place, notes: list[str]
) -> list[Seen]:
    """The same questions to the same models, one model in memory at a time."""
    answered = list(seens)
    for side in ("baseline", "candidate"):
        if "stored" in verdict[side]:
            notes.append(STORED)
            continue
        policy = local_policy(Path(verdict[side]["name"]))
        for i, result in enumerate(results):
            if result.side == side:
                if policy.id != result.model:
                    notes.append(f"the {side} is not the model that was judged: {policy.id} instead of {result.model}")
                answered[i] = replace(seens[i], again=tuple(_ask(policy, result, seens[i], place)))
        del policy
    return answered


def _ask(policy: Policy, result: Result, seen: Seen, place: Place) -> list[Again]:
    n, prompt = len(result.sampled), _prompt(place, result)
    asked: list[tuple[int, Sampling]] = [(1, result.greedy_sampling), *([(n, result.draws_sampling)] if n else [])]
    fresh = [rollout for count, sampling in asked for rollout in policy.sample([prompt], count, sampling)]
    graded = _grade(place, fresh, None)
    return [
        Again(graded=new, same=old.text is not None and new.text == old.text)
        for new, old in zip(graded, (seen.greedy, *seen.draws), strict=True)
    ]


class _Remembered:
    """A policy of which only the cache speaks."""

    def __init__(self, policy_id: str) -> None:
        self.id = policy_id

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Any:
        raise RunError("the cache lost an answer while it was read", fix="give the same command again")
