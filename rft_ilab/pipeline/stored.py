"""A baseline whose results are stored in the repository: what of them still fits, and what to do where none does."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rft_ilab.pipeline.baselines import EMBEDDED, asked, read_baseline
from rft_ilab.pipeline.gauge import Gauge, Measurement, answer_of, label
from rft_ilab.pipeline.request import Workspace, user_cache
from rft_ilab.policy.local.identity import directory_digest
from rft_ilab.regress.baseline import Baseline, StoredSuite, StoredTask, short_digest, short_id
from rft_ilab.regress.verdict import Answer, TaskResult
from rft_ilab.rollouts import Environment, grade_groups, missing_groups
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import Run
from rft_ilab.types import Policy, Prompt, Rollout, Sampling, Task

OpenModel = Callable[[Path], Policy]


class StoredBaseline:
    """Results from ``taxonomy/baselines/NAME.json``, each used only where task, prompt, settings and grader are still
    those it was measured with.

    Where just the grader changed, a completion that was kept whole is graded anew. What else does not fit is measured
    if the model is at hand or its answers are in the cache; if not, the task has no result on this side, and counts as
    ungraded.
    """

    def __init__(self, space: Workspace, run: Run, gauge: Gauge, open_model: OpenModel) -> None:
        self.space, self.run, self.gauge, self.open_model = space, run, gauge, open_model
        self.stored = self._read()
        self.id = self.stored.model_id
        self.name = f"baseline {self.stored.name}: {self.stored.model_name}"
        self.policy: Policy | None = None
        self.searched = False
        self.suites: list[dict[str, Any]] = []

    def _read(self) -> Baseline:
        """From what judges; of skills that are new in the branch, from the branch's baseline of the same model."""
        request = self.space.request
        stored, base = read_baseline(request.taxonomy, request.baseline), request.base
        if base is None or not base.new or not (base.own / "baselines" / f"{stored.name}.json").is_file():
            return stored
        own = read_baseline(base.own, stored.name)
        if own.model_id != stored.model_id:
            return stored
        return dataclasses.replace(
            stored,
            prompts={**stored.prompts, **{s: n for s, n in own.prompts.items() if s in base.new}},
            suites=[*stored.suites, *(suite for suite in own.suites if suite.skill in base.new)],
        )

    def better_prompt(self, environment: Environment) -> int:
        known = self.stored.prompts.get(environment.skill.name)
        if known is not None:
            return known
        policy = self._at_hand()
        return self.gauge.better_prompt(policy, environment) if policy else environment.settings.demonstrations

    def measure(self, m: Measurement, advance: Any) -> list[TaskResult]:
        """One result a task, in order; without a score where this baseline has none that fits."""
        suite, wanted = self.stored.suite(m.suite.name, m.suite.demonstrations), m.suite.samples
        fitting = _fitting(m, suite)
        drawn = suite is not None and _drawn_alike(m, suite)
        results = {
            task.id: _result(m, task, line, line.sampled[:wanted] if drawn else (None,) * wanted)
            for task in m.tasks
            if (line := fitting.get(task.id)) is not None
        }
        regraded: dict[str, TaskResult] = {}
        if suite is not None and suite.grader != m.environment.grader.digest:
            whole = [task for task in m.tasks if task.id in fitting and fitting[task.id].whole]
            results = regraded = {r.task_id: r for r in self._regraded(m, whole, results)}
            drawn = False
        measured = self._measured(m, [t for t in m.tasks if t.id not in results or (wanted and not drawn)])
        results = {**results, **measured}
        unpaired = [task for task in m.tasks if task.id not in results]
        advance(2 * len(m.tasks))
        changed = _changes(m, suite, fitting)
        facts = {
            "skill": m.suite.name,
            "prompt": label(m),
            "tasks": len(m.tasks),
            "regraded": len(regraded),
            "measured": len(measured),
            "unpaired": len(unpaired),
            "undrawn": 0 if drawn or not wanted else len(results) - len(measured),
            "gone": len(suite.tasks.keys() - {short_id(task.id) for task in m.tasks}) if suite else 0,
            "changed": changed,
        }
        self.suites.append(facts)
        if changed:
            self.gauge.screen.say(
                f"{m.suite.name} ({label(m)}): the stored baseline {self.stored.name} is older than what judges "
                f"({'; '.join(changed)}): {len(regraded)} of {len(m.tasks)} answers graded anew, "
                f"{len(measured)} measured again, {len(unpaired)} without a result"
            )
        return [results.get(task.id) or _result(m, task, None, (None,) * wanted) for task in m.tasks]

    def _regraded(self, m: Measurement, tasks: Sequence[Task], kept: Mapping[str, TaskResult]) -> list[TaskResult]:
        """Kept completions under today's grader; their draws were not kept, so those stay without a score."""
        groups = [
            [Rollout(task_id=t.id, index=0, policy_id=self.id, completion=kept[t.id].greedy.text, stop="eos")]
            for t in tasks
        ]
        graded = grade_groups(m.environment.grader, tasks, groups, self.space.cache)
        return [
            dataclasses.replace(kept[one.task.id], greedy=answer_of(one), sampled=(None,) * m.suite.samples)
            for (one,) in graded
        ]

    def _measured(self, m: Measurement, tasks: Sequence[Task]) -> dict[str, TaskResult]:
        """Of ``tasks``, those that the model can still be asked, or has answered before on this machine."""
        if not tasks:
            return {}
        policy: Policy = self._at_hand() or _Absent(self.id)
        if isinstance(policy, _Absent):
            prompts = [build_prompt(m.environment.skill, task, m.suite.demonstrations) for task in tasks]
            greedy = Sampling(temperature=0.0, max_tokens=m.suite.sampling.max_tokens)
            cache = self.space.cache
            missing = set(missing_groups(policy, prompts, 1, greedy, cache))
            if m.suite.samples:
                missing |= set(missing_groups(policy, prompts, m.suite.samples, m.suite.sampling, cache))
            tasks = [task for i, task in enumerate(tasks) if i not in missing]
        part = dataclasses.replace(m, tasks=tasks)
        return {r.task_id: r for r in self.gauge.measure(policy, part, lambda done: None)} if tasks else {}

    def _at_hand(self) -> Policy | None:
        """The baseline's own model, if one that this gate knows of is just that; loaded at most once."""
        if not self.searched:
            self.searched = True
            started = self.run.manifest.get("model")
            places = [Path(started)] if started else []
            places += [self.run.path("model")]
            if self.stored.model_name == EMBEDDED:
                places.append(self.space.model_directory)
            for place in places:
                if place.is_dir() and self.id.startswith(f"local:{_digest(place)}:"):
                    policy = self.open_model(place)
                    if policy.id == self.id:
                        self.gauge.screen.say(f"the model of the stored baseline is at hand: {place}")
                        self.policy = policy
                        break
        return self.policy

    def explained(self, m: Measurement, before: list[TaskResult], after: Sequence[TaskResult]) -> list[TaskResult]:
        """Where the candidate's score differs, say what the grader makes of the kept completion."""
        now = {result.task_id: result.greedy.score for result in after}
        tasks = {task.id: task for task in m.tasks}
        suite = self.stored.suite(m.suite.name, m.suite.demonstrations)
        flipped = [
            result
            for result in before
            if result.greedy.score is not None
            and now.get(result.task_id) not in (None, result.greedy.score)
            and not result.greedy.reason
        ]
        whole = [r for r in flipped if suite and (kept := suite.tasks.get(short_id(r.task_id))) and kept.whole]
        graded = {
            r.task_id: r for r in self._regraded(m, [tasks[r.task_id] for r in whole], {r.task_id: r for r in whole})
        }
        return [_explained(result, graded.get(result.task_id), result in flipped) for result in before]

    def note(self, skill: str) -> str:
        """Why results are missing and how to have them again; empty if none are."""
        changed = {c: None for s in self.suites if s["skill"] == skill for c in s["changed"]}
        lacking = any(s["unpaired"] or s["undrawn"] for s in self.suites if s["skill"] == skill)
        if not lacking:
            return ""
        why = "; ".join(changed) or "its answers are missing"
        return f"the stored baseline {self.stored.name!r} does not fit ({why}); renew it with: {self._renew()}"

    def _renew(self) -> str:
        request, model = self.space.request, self.stored.model_name
        words = ["ilab", "rft", "baseline", "save", self.stored.name]
        words += [] if model == EMBEDDED else ["--model", f"DIRECTORY_OF_{model}"]
        words += [word for target in request.targets for word in ("--target", target)]
        for name, suite in request.settings.suites.items():
            words += ["--suite", f"{name}:{suite.limit}" if suite.limit else name]
        return shlex.join(words + (["--no-target"] if request.no_target else []))

    def facts(self) -> dict[str, Any]:
        stored = {"name": self.stored.name, "versions": dict(self.stored.versions), "suites": self.suites}
        return {"id": self.id, "name": self.name, "stored": stored}


class _Absent:
    """The baseline's name without its model: only the cache can answer for it."""

    def __init__(self, policy_id: str) -> None:
        self.id = policy_id

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> NoReturn:
        raise AssertionError("only cached answers are asked for")


def _fitting(m: Measurement, suite: StoredSuite | None) -> dict[str, StoredTask]:
    """By task id, the lines that were measured on just this task and prompt, with just these many tokens."""
    if suite is None or suite.max_tokens != m.suite.sampling.max_tokens:
        return {}
    found = {task.id: suite.tasks.get(short_id(task.id)) for task in m.tasks}
    tasks = {task.id: task for task in m.tasks}
    return {i: line for i, line in found.items() if line and line.task == short_digest(asked(m, tasks[i]))}


def _drawn_alike(m: Measurement, suite: StoredSuite) -> bool:
    """Whether the stored draws are those that are asked for here.

    Each draw has a random stream of its own, so the first of many are those that fewer would have been.
    """
    s = m.suite.sampling
    return (suite.temperature, suite.seed) == (s.temperature, s.seed) and suite.samples >= m.suite.samples


def _result(m: Measurement, task: Task, line: StoredTask | None, sampled: tuple[float | None, ...]) -> TaskResult:
    text = "" if line is None else line.text
    return TaskResult(
        task_id=task.id,
        group=task.group,
        cls=(m.environment.classes or {}).get(task.id),
        reference=task.reference,
        prompt=task.messages[-1].content,
        greedy=Answer(score=line.greedy if line else None, text=text, reason="" if line else "not in the baseline"),
        sampled=sampled,
    )


def _explained(result: TaskResult, graded: TaskResult | None, flipped: bool) -> TaskResult:
    """With a reason where it flipped. The stored score stays what is compared."""
    if not flipped:
        return result
    if graded is None:
        cut = dataclasses.replace(
            result.greedy, text=f"{result.greedy.text} [...]", reason="only its beginning is stored"
        )
        return dataclasses.replace(result, greedy=cut)
    reason = graded.greedy.reason
    if graded.greedy.score != result.greedy.score:
        # The file was edited, or the grader does not say the same thing twice.
        reason = f"stored as {result.greedy.score:g}, but the same grader says now: {reason}"
    return dataclasses.replace(
        result, greedy=dataclasses.replace(graded.greedy, score=result.greedy.score, reason=reason)
    )


def _changes(m: Measurement, suite: StoredSuite | None, fitting: Mapping[str, StoredTask]) -> list[str]:
    """What of the suite is not as it was when the baseline was stored."""
    if suite is None:
        return [f"no results with the prompt asked for here: {label(m)}"]
    changed, s = [], m.suite.sampling
    if suite.grader != m.environment.grader.digest:
        changed.append(f"the grader changed: {suite.grader[:12]} then, {m.environment.grader.digest[:12]} now")
    if suite.max_tokens != s.max_tokens:
        return [*changed, f"max_tokens changed: {suite.max_tokens} then, {s.max_tokens} now"]
    if m.suite.samples:
        pairs = {"temperature": (suite.temperature, s.temperature), "seed": (suite.seed, s.seed)}
        pairs |= {"samples": (suite.samples, m.suite.samples)} if suite.samples < m.suite.samples else {}
        changed += [f"{name} changed: {then:g} then, {now:g} now" for name, (then, now) in pairs.items() if then != now]
    if other := len(m.tasks) - len(fitting):
        changed.append(f"{other} of {len(m.tasks)} tasks are new or changed")
    return changed


def _digest(directory: Path) -> str:
    return directory_digest(directory, user_cache())
