"""``ilab model regress --until-decided``: tasks in batches, a look after each, no more of a suite than decides it.

What is left out is saved on both models. All answers go through the cache, so that judging the whole suite later pays
for the rest alone. Where bets decide, the run remembers what was drawn (:mod:`rft_ilab.pipeline.drawn`): the next time
the drawing goes on from there, in batches of any size, with the tasks that were added since.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rft_ilab.config import GateSettings
from rft_ilab.pipeline.drawn import Stretch, drawn_before, file_of, group_digests, keep
from rft_ilab.pipeline.gauge import Measurement
from rft_ilab.pipeline.inputs import Targets, Watched, judge_inputs
from rft_ilab.pipeline.screen import Screen
from rft_ilab.regress.anytime import Course, Stage, by_bets
from rft_ilab.regress.betting import Terms
from rft_ilab.regress.classes import majority
from rft_ilab.regress.gate import judge
from rft_ilab.regress.sequential import Look, batches, schedule
from rft_ilab.regress.verdict import TaskResult
from rft_ilab.store import Run

Method = Literal["auto", "anytime", "scheduled"]


@dataclass(frozen=True, kw_only=True)
class Early:
    """How to stop early. ``auto``: bets where the sizes of a suite's groups let them win, else scheduled looks."""

    batch: int
    method: Method = "auto"


@dataclass(frozen=True)
class Drawn:
    """What was drawn: the suites as far as they go, the last look at each by skill, and all results by suite digest."""

    targets: dict[str, list[Measurement]]
    watched: dict[str, Measurement]
    looks: dict[str, Stage]
    before: dict[str, list[TaskResult]]
    after: dict[str, list[TaskResult]]


# What a model does on a suite; the second argument is told how many answers are done.
Ask = Callable[[Measurement, Callable[[int], None]], list[TaskResult]]


def at_once(ask: Ask, suites: Sequence[Measurement]) -> Ask:
    """For a baseline whose results are stored: they are read once, for whole suites, and handed out in parts."""
    known = {
        (m.suite.name, m.suite.demonstrations): {result.task_id: result for result in ask(m, lambda done: None)}
        for m in suites
    }

    def part(m: Measurement, advance: Callable[[int], None]) -> list[TaskResult]:
        advance(2 * m.calls)
        results = known[m.suite.name, m.suite.demonstrations]
        return [results[task.id] for task in m.tasks]

    return part


@dataclass
class Drawing:
    """A skill's suite while it is drawn. ``prompts``: the baseline answers all, the candidate the first.

    ``looks``: one a batch. ``file``: where bets keep what was drawn, ``stretches`` what was there.
    """

    prompts: Sequence[Measurement]
    batches: Sequence[Sequence[int]]
    looks: Sequence[Stage]
    file: Path | None = None
    stretches: Sequence[Stretch] = ()
    taken: int = 0
    before: list[list[TaskResult]] = field(default_factory=list)  # one list a prompt
    after: list[TaskResult] = field(default_factory=list)

    @classmethod
    def scheduled(cls, prompts: Sequence[Measurement], batch: int, seed: int) -> Drawing:
        m = prompts[0]
        parts = batches([task.group for task in m.tasks], batch, [m.suite.name, seed])
        shares, available, constant = schedule([len(part) for part in parts]), len(m.tasks), _constant(m)
        looks = [Look(shares_K=shares, index=i, available=available, constant=constant) for i in range(len(parts))]
        return cls(prompts=prompts, batches=parts, looks=looks, before=[[] for _ in prompts])

    @classmethod
    def by_bets(
        cls, prompts: Sequence[Measurement], batch: int, seed: int, goal: float, file: Path, stretches: list[Stretch]
    ) -> Drawing:
        m = prompts[0]
        groups_N = [task.group for task in m.tasks]
        first = [name for stretch in stretches for name in stretch.groups]
        parts = batches(groups_N, batch, [m.suite.name, seed], first, most=max(len(groups_N), 1))
        sizes = Counter(groups_N)
        known = tuple(stretch.terms for stretch in stretches)
        largest = max([*sizes.values(), *(terms.largest for terms in known)], default=0)
        looks, drawn = [], 0
        for index, part in enumerate(parts):
            drawn += len({groups_N[i] for i in part})
            more = drawn - len(first)
            fresh = Terms(drawn=more, groups=len(sizes), tasks=len(groups_N), largest=largest, goal=goal)
            looks.append(
                Course(
                    terms=(*known, fresh) if more else known,
                    available=len(groups_N),
                    last=index == len(parts) - 1,
                    constant=_constant(m),
                )
            )
        empty: list[list[TaskResult]] = [[] for _ in prompts]
        return cls(prompts=prompts, batches=parts, looks=looks, file=file, stretches=stretches, before=empty)

    @property
    def look(self) -> Stage:
        return self.looks[self.taken - 1]

    def draw(self, baseline: Ask, candidate: Ask, advance: Callable[[int], None]) -> None:
        """The next batch, answered by both models."""
        chosen = self.batches[self.taken]
        for m, results in zip(self.prompts, self.before, strict=True):
            results += baseline(_part(m, chosen), advance)
        self.after += candidate(_part(self.prompts[0], chosen), advance)
        self.taken += 1
        self._keep()

    def _keep(self) -> None:
        look = self.look
        if self.file is None or not isinstance(look, Course) or len(look.terms) == len(self.stretches):
            return
        tasks = self.prompts[0].tasks
        names = dict.fromkeys(tasks[i].group for batch in self.batches[: self.taken] for i in batch)
        known, digests = {name for stretch in self.stretches for name in stretch.groups}, group_digests(tasks)
        fresh = Stretch(look.terms[-1], {name: digests[name] for name in names if name not in known})
        keep(self.file, self.prompts[0].suite.name, [*self.stretches, fresh])

    def drawn(self) -> list[Measurement]:
        """The measurements, of the tasks drawn so far alone."""
        chosen = [i for batch in self.batches[: self.taken] for i in batch]
        return [_part(m, chosen) for m in self.prompts]


def until_decided(
    baseline: Ask,
    candidate: Ask,
    targets: Targets,
    watched: Watched,
    settings: GateSettings,
    early: Early,
    run: Run,
    models: Sequence[str],
    screen: Screen,
) -> Drawn:
    """Draw every suite until it is decided or used up. ``models``: ids of baseline and candidate.

    A suite that was decided only because another was (Holm's adjustment) goes on if that is taken back. Raises RunError
    if tasks that were drawn before changed.
    """
    drawings = _drawings(targets, watched, settings, early, run, models, screen)
    total = sum(2 * m.calls for d in drawings.values() for m in (*d.prompts, d.prompts[0]))
    undecided, outcomes = list(drawings), dict.fromkeys(drawings, "INCONCLUSIVE")
    with screen.bar("baseline and candidate", total) as advance:
        while undecided:
            for name in undecided:
                drawings[name].draw(baseline, candidate, advance)
            verdict = _judge(targets, watched, drawings, settings)
            for row in (*verdict["targets"], *verdict["watched"]):
                name, look = row["skill"], drawings[row["skill"]].look
                if row["outcome"] != outcomes[name]:
                    screen.say(
                        f"  {name}: {row['outcome']} after {len(drawings[name].after)} of {look.available} tasks"
                    )
                outcomes[name] = row["outcome"]
            undecided = [n for n, d in drawings.items() if outcomes[n] == "INCONCLUSIVE" and not d.look.last]
    screen.say(_saved(drawings))
    drawn = {name: d.drawn() for name, d in drawings.items()}
    return Drawn(
        targets={name: drawn[name] for name in targets},
        watched={name: drawn[name][0] for name in watched},
        looks={name: d.look for name, d in drawings.items()},
        before={
            m.suite.digest: results
            for name, d in drawings.items()
            for m, results in zip(drawn[name], d.before, strict=True)
        },
        after={drawn[name][0].suite.digest: d.after for name, d in drawings.items()},
    )


def _judge(targets: Targets, watched: Watched, drawings: dict[str, Drawing], settings: GateSettings) -> dict[str, Any]:
    before = {
        m.suite.digest: results for d in drawings.values() for m, results in zip(d.prompts, d.before, strict=True)
    }
    after = {d.prompts[0].suite.digest: d.after for d in drawings.values()}
    looks = {name: _interim(d.look) for name, d in drawings.items()}
    return judge(*judge_inputs(targets, watched, before, after, looks), settings, {}, {})


def _drawings(
    targets: Targets,
    watched: Watched,
    settings: GateSettings,
    early: Early,
    run: Run,
    models: Sequence[str],
    screen: Screen,
) -> dict[str, Drawing]:
    deciding = sum(m.suite.tier != "advisory" for m in watched.values())
    suites = {name: (prompts, settings.margin, 1) for name, prompts in targets.items()}
    suites |= {n: ([m], m.suite.margin, deciding if m.suite.tier != "advisory" else 1) for n, m in watched.items()}
    drawings = {}
    for name, (prompts, margin, among) in suites.items():
        tasks, goal = prompts[0].tasks, settings.alpha / (2.0 * among)
        file = file_of(run, prompts, models)
        stretches = drawn_before(file, tasks) if early.method != "scheduled" else []
        wins = by_bets(list(Counter(task.group for task in tasks).values()), margin, goal)
        if stretches or early.method == "anytime" or (early.method == "auto" and wins):
            drawings[name] = Drawing.by_bets(prompts, early.batch, settings.seed, goal, file, stretches)
        else:
            drawings[name] = Drawing.scheduled(prompts, early.batch, settings.seed)
        if stretches:
            screen.say(f"  {name}: goes on after {len(drawings[name].batches[0])} of {len(tasks)} tasks")
        elif early.method == "auto" and not wins:
            looks = len(drawings[name].looks)
            screen.say(f"  {name}: {looks} scheduled looks; its groups are too few or too unequal for bets")
    return drawings


def _constant(m: Measurement) -> str | None:
    """The most frequent class of the whole suite, if it has classes."""
    classes = m.environment.classes or {}
    named = [classes[task.id] for task in m.tasks if task.id in classes]
    return majority(named)[0] if named else None


def _interim(look: Stage) -> Stage:
    """For an outcome alone: intervals by bets take their time."""
    return dataclasses.replace(look, interim=True) if isinstance(look, Course) else look


def _saved(drawings: dict[str, Drawing]) -> str:
    tasks = sum(len(d.after) for d in drawings.values())
    available = sum(d.prompts[0].calls for d in drawings.values())
    asked = sum(_rollouts(d) * len(d.after) for d in drawings.values())
    planned = sum(_rollouts(d) * d.prompts[0].calls for d in drawings.values())
    share = 1.0 - asked / planned if planned else 0.0
    return f"until decided: {tasks} of {available} tasks, {asked} of {planned} rollouts ({share:.0%} saved)"


def _rollouts(drawing: Drawing) -> int:
    """Of both models for one task."""
    return sum(1 + m.suite.samples for m in (*drawing.prompts, drawing.prompts[0]))


def _part(m: Measurement, chosen: Sequence[int]) -> Measurement:
    tasks = [m.tasks[i] for i in chosen]
    suite = dataclasses.replace(m.suite, task_ids=tuple(task.id for task in tasks))
    return dataclasses.replace(m, suite=suite, tasks=tasks)
