"""``ilab model regress --until-decided``: tasks in batches, a look after each, no more of a suite than decides it.

What is left out is saved on both models. All answers go through the cache, so that judging the whole suite later pays
for the rest alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rft_ilab.config import GateSettings
from rft_ilab.pipeline.gauge import Measurement
from rft_ilab.pipeline.inputs import Targets, Watched, judge_inputs
from rft_ilab.pipeline.screen import Screen
from rft_ilab.regress.classes import majority
from rft_ilab.regress.gate import judge
from rft_ilab.regress.sequential import Look, batches, schedule
from rft_ilab.regress.verdict import TaskResult


@dataclass(frozen=True)
class Drawn:
    """What was drawn: the suites as far as they go, the last look at each by skill, and all results by suite digest."""

    targets: dict[str, list[Measurement]]
    watched: dict[str, Measurement]
    looks: dict[str, Look]
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
    """A skill's suite while it is drawn. ``prompts``: the baseline answers all, the candidate the first."""

    prompts: Sequence[Measurement]
    batches: Sequence[Sequence[int]]
    looks: Sequence[Look]
    taken: int = 0
    before: list[list[TaskResult]] = field(default_factory=list)  # one list a prompt
    after: list[TaskResult] = field(default_factory=list)

    @classmethod
    def of(cls, prompts: Sequence[Measurement], batch: int, seed: int) -> Drawing:
        m = prompts[0]
        parts = batches([task.group for task in m.tasks], batch, [m.suite.name, seed])
        shares = schedule([len(part) for part in parts])
        classes = m.environment.classes or {}
        named = [classes[task.id] for task in m.tasks if task.id in classes]
        constant = majority(named)[0] if named else None
        looks = [Look(shares_K=shares, index=i, available=len(m.tasks), constant=constant) for i in range(len(parts))]
        return cls(prompts=prompts, batches=parts, looks=looks, before=[[] for _ in prompts])

    @property
    def look(self) -> Look:
        return self.looks[self.taken - 1]

    def draw(self, baseline: Ask, candidate: Ask, advance: Callable[[int], None]) -> None:
        """The next batch, answered by both models."""
        chosen = self.batches[self.taken]
        for m, results in zip(self.prompts, self.before, strict=True):
            results += baseline(_part(m, chosen), advance)
        self.after += candidate(_part(self.prompts[0], chosen), advance)
        self.taken += 1

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
    batch: int,
    screen: Screen,
) -> Drawn:
    """Draw every suite until it is decided or used up.

    A suite that was decided only because another was (Holm's adjustment) goes on if that is taken back.
    """
    suites = {**targets, **{name: [m] for name, m in watched.items()}}
    drawings = {name: Drawing.of(prompts, batch, settings.seed) for name, prompts in suites.items()}
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
    looks = {name: d.look for name, d in drawings.items()}
    return judge(*judge_inputs(targets, watched, before, after, looks), settings, {}, {})


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
