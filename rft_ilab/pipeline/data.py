"""The data stage: tasks from all sources, answers to them, and what the graders say; written to ``data/`` of the run.

verified.jsonl  the answers kept, as ``ilab model train`` reads them
tasks.jsonl     tasks that were generated or that a teacher wrote, for RL to learn from beside the authored ones
ledger.jsonl    one line a candidate, see :mod:`rft_ilab.synth.ledger`
rlvr/           the tasks with signal as prompt sets for Open-Instruct, OpenAI, TRL and verl
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rft_ilab.grading.generator import has_generator
from rft_ilab.pipeline.cost import minutes
from rft_ilab.pipeline.datacost import data_cost, planned
from rft_ilab.pipeline.datayield import check_errors, check_yield, ledger_lines
from rft_ilab.pipeline.request import Workspace, measure_speed
from rft_ilab.pipeline.screen import Screen
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import build_prompt, task_from_row
from rft_ilab.store import Run, read_jsonl, write_atomic
from rft_ilab.synth import ledger
from rft_ilab.synth.contamination import HeldOut
from rft_ilab.synth.exports import ExportTask, export_rlvr, export_task
from rft_ilab.synth.ledger import Entry
from rft_ilab.synth.screening import MOST_LUCK, Known, enough, entry, held_out, luck, question, screen
from rft_ilab.synth.sources import Proposal, from_generator, paraphrases, questions
from rft_ilab.synth.verify import Sourced, Verified, answer_sampling, authored, verify_answers
from rft_ilab.types import Policy, Task

if TYPE_CHECKING:
    from rft_ilab.policy.endpoint import Usage


def data_stage(space: Workspace, run: Run, out: Screen) -> Path:
    """Fill ``data/`` of the run, unless it is there; returns ``verified.jsonl``.

    Raises SignalError when no sample of a target is right, RunError when none of its answers is kept, GraderError when
    too many could not be graded; the ledger is there even then.
    """
    path = run.path("data", "verified.jsonl")
    if run.done("data"):
        out.say(f"verified data: {len(read_jsonl(path))} answers are there already")
        return path
    with run.stage("data") as facts:
        work = _Work(space, out)
        facts["positions_per_second"] = work.speed
        work.announce()
        try:
            work.everything()
        finally:  # a run that stops for want of right answers is one whose candidates people want to see
            found = work.found
            lines = [line for one in found for line in one.ledger]
            _write(run.path("data", "ledger.jsonl"), (line.as_row() for line in lines))
        ledger.check(lines)
        examples = [example for one in found for example in one.examples]
        _write(run.path("data", "tasks.jsonl"), (_task_row(one) for v in found for one in v.tasks if one.screened))
        sets = export_rlvr(run.path("data", "rlvr"), _exported(space, found))
        out.say("  prompt sets: " + ", ".join(sorted(sets)))
        _write(path, (example.as_row() for example in examples))
        answers = ledger.counts(lines, "answer")
        facts |= {
            "candidates": answers.total(),
            "candidate_tasks": ledger.counts(lines, "task").total(),
            "verified": len(examples),
            "usage": work.usage(),
        }
    return path


def training_targets(space: Workspace, run: Run) -> list[Environment]:
    """The targets with the tasks that the data stage let through, authored ones and others."""
    return [
        Environment.of(e.skill, [*clean_tasks(space, e), *further_tasks(run, e)], e.grader, e.settings)
        for e in space.targets
    ]


def further_tasks(run: Run, environment: Environment) -> list[Task]:
    """Tasks that the data stage kept beside the authored ones. Raises SkillError if the skill has changed since."""
    rows = read_jsonl(run.path("data", "tasks.jsonl"))
    return [task_from_row(environment.skill, row["row"]) for row in rows if row["skill"] == environment.skill.name]


def clean_tasks(space: Workspace, environment: Environment) -> list[Task]:
    """The authored tasks without training tasks that are val or test tasks, which the data stage leaves out too."""
    found = held_out(space.environments)
    own = environment.skill.name
    return [t for t in environment.tasks if t.split != "train" or found.find(question(t), own=own) is None]


class _Work:
    """One pass over all skills with one teacher."""

    def __init__(self, space: Workspace, out: Screen) -> None:
        self.space, self.out = space, out
        self.settings, self.seed = space.settings.data, space.settings.train.seed
        self.found: list[Verified] = []
        self.teacher: Policy = space.teacher()
        # Difficulty is the student's; where another model is the teacher, the student has to be asked as well.
        self.student = space.student() if space.request.endpoint and self.settings.band_samples else None
        self.speed = measure_speed(self.student or self.teacher)
        self.held_out: HeldOut = held_out(space.environments)

    def announce(self) -> None:
        """What it will cost at most, before it starts."""
        cost, request = data_cost(self.space, student=self.student is not None), self.space.request
        for line in cost.lines(speed=self.speed, endpoint=bool(request.endpoint)):
            self.out.say(line)
        if request.endpoint and (took := self._first_call()):
            at_a_time = request.concurrency * (request.endpoint.count(",") + 1)
            about = minutes(cost.calls * took / at_a_time, 1.0)
            self.out.say(f"  the first call took {took:.1f} s: {about} with {at_a_time} calls at a time")

    def _first_call(self) -> float | None:
        """Seconds that the teacher takes for an answer that is needed anyhow; None if it was in the cache."""
        environment = self.space.environments[0]
        tasks, _ = authored(environment, planned(self.space, environment), self.held_out, self.seed)
        prompts = [build_prompt(environment.skill, one.task, environment.settings.demonstrations) for one in tasks[:1]]
        started = time.monotonic()
        list(self.teacher.sample(prompts, 1, answer_sampling(environment, self.settings, self.seed)))
        spent = self._spent()
        return time.monotonic() - started if spent and spent.calls else None

    def _spent(self) -> Usage | None:
        """What a teacher that is asked over the network has cost so far."""
        return getattr(self.teacher, "usage", None)

    def everything(self) -> None:
        """Fill ``found``, skill by skill."""
        for environment in self.space.environments:
            self._skill(environment)

    def usage(self) -> dict[str, Any]:
        """What the endpoint cost; empty where the teacher is a model in this process."""
        spent = self._spent()
        if spent is None:
            return {}
        self.out.say(
            f"  teacher: {spent.calls} calls answered ({spent.retries} tries more), {spent.cached} answers from the "
            f"cache, {spent.prompt_tokens:,} tokens read, {spent.completion_tokens:,} written, {spent.seconds:.0f} s"
        )
        answered: dict[str, int] = getattr(self.teacher, "answered", {})
        servers = {"answered": answered} if len(answered) > 1 else {}
        if servers:
            self.out.say("  answered by " + ", ".join(f"{url}: {calls}" for url, calls in answered.items()))
        return asdict(spent) | {"seconds": round(spent.seconds, 2)} | servers

    def _skill(self, environment: Environment) -> None:
        target = environment in self.space.targets
        tasks, refused = authored(environment, planned(self.space, environment), self.held_out, self.seed)
        if target:
            more, lines = self._further(environment, [one.task for one in tasks])
            tasks, refused = [*tasks, *more], [*refused, *lines]
        name = environment.skill.name
        with self.out.bar(f"answers, {name}", len(tasks)) as advance:
            verified = verify_answers(
                environment,
                self.teacher,
                self.settings,
                tasks,
                train_demonstrations=0 if target else environment.settings.demonstrations,
                seed=self.seed,
                cache=self.space.cache,
                student=self.student if target else None,
                group_size=self.space.settings.train.group_size,
                advance=advance,
            )
        verified = Verified(verified.examples, (*refused, *verified.ledger), verified.tasks)
        self.found.append(verified)
        for line in ledger_lines(name, verified):
            self.out.say(line)
        check_errors(name, verified, self.space.settings.train.max_error_share)
        if target:
            check_yield(environment, verified, self.space)

    def _further(self, environment: Environment, tasks: Sequence[Task]) -> tuple[list[Sourced], list[Entry]]:
        """Tasks of the generator and of the teacher that stood the screening, and the lines of those that did not."""
        settings, seed, cache, warmth = self.settings, self.seed, self.space.cache, self.settings.writing_temperature
        proposals: list[Proposal] = []
        if settings.generated and has_generator(environment.skill):
            proposals += from_generator(environment.skill, settings.generated, seed, cache)
        if settings.paraphrases and tasks:
            each, rest = divmod(settings.paraphrases, len(tasks))
            for count, some in ((each + 1, tasks[:rest]), (each, tasks[rest:])):
                if count and some:
                    with self.out.bar("paraphrases", len(some)) as advance:
                        proposals += paraphrases(
                            self.teacher, some, count, temperature=warmth, seed=seed, cache=cache, advance=advance
                        )
        if settings.questions:
            with self.out.bar("new questions", settings.questions) as advance:
                proposals += questions(
                    environment,
                    self.teacher,
                    settings.questions,
                    temperature=warmth,
                    seed=seed,
                    cache=cache,
                    advance=advance,
                )
        if not proposals:
            return [], []
        if settings.questions:
            self._warn_of_luck(environment)
        with self.out.bar("agreement", len(proposals)) as advance:
            found = screen(
                environment,
                proposals,
                Known.with_held_out(self.held_out, environment),
                self.teacher,
                samples=settings.agree_of,
                needed=settings.agree,
                seed=seed,
                cache=cache,
                advance=advance,
            )
        kept = [
            Sourced(task=one.task, source=one.proposal.source, screened=one)
            for one in found
            if one.disposition == "kept" and one.task
        ]
        return kept, [entry(environment, one) for one in found if one.disposition != "kept"]

    def _warn_of_luck(self, environment: Environment) -> None:
        """With few classes, answers that know nothing agree often."""
        classes, n, k = list((environment.classes or {}).values()), self.settings.agree_of, self.settings.agree
        if classes and (chance := luck(classes, n, k)) > MOST_LUCK:
            more, needed = enough(classes, n, k)
            self.out.say(
                f"  note: with so few classes {k} of {n} answers agree {chance:.0%} of the time without reading the "
                f"question; for new questions better agree = {needed}, agree_of = {more} (rft.toml)"
            )


def _exported(space: Workspace, found: Sequence[Verified]) -> list[ExportTask]:
    """Targets alone: their training tasks but those too easy or too hard, and all their validation tasks."""
    of = {one.task.skill: verified for verified in found for one in verified.tasks}
    rows = []
    for e in space.targets:
        answered = of[e.skill.name].tasks if e.skill.name in of else ()
        chosen = [one for one in answered if one.band in (None, "signal")]
        chosen += [Sourced(task=task) for task in e.split("val")]
        rows += [
            export_task(e, one.task, source=one.source, evidence=one.evidence, pass_rate=one.passes.rate)
            for one in chosen
        ]
    return rows


def _task_row(one: Sourced) -> dict[str, Any]:
    proposal = one.screened.proposal if one.screened else None
    row = (proposal.row or {}) if proposal else {}
    seed = proposal.seed.id if proposal and proposal.seed else None
    return {
        "skill": one.task.skill, "source": one.source, "evidence": one.evidence, "seed_id": seed, "band": one.band,
        "row": {"reference": one.task.reference} | row,
    }  # fmt: skip


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
