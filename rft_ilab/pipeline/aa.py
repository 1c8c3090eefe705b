"""``ilab model regress --aa N``: a model gated against itself, N times, on answers drawn with different seeds.

Greedy answers of one model are equal by construction and would show nothing. So each side answers every task N times at
the gate's temperature, and the n-th answer of either side stands where the greedy one stands in the gate: what differs
is chance alone, and the whole rule has to say so.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.errors import RunError
from rft_ilab.pipeline.cost import minutes
from rft_ilab.pipeline.gauge import Gauge, Measurement
from rft_ilab.pipeline.inputs import judge_inputs
from rft_ilab.pipeline.request import Request, Workspace, local_policy, measure_speed, with_own_targets
from rft_ilab.pipeline.screen import Screen
from rft_ilab.pipeline.suites import suite_environments
from rft_ilab.regress.aa import claimed, summary
from rft_ilab.regress.gate import judge
from rft_ilab.regress.verdict import Answer, TaskResult
from rft_ilab.store import write_json
from rft_ilab.types import Policy

Sides = dict[str, tuple[list[TaskResult], list[TaskResult]]]


def against_itself(request: Request, model: Path | None, repeats: int, *, console: Console) -> dict[str, Any]:
    """Flip rate of ``model`` (default: the baseline) over ``repeats``; writes ``gate/aa.json`` (:func:`summary`).

    Raises RunError if the gate draws at temperature 0, PolicyError when there is no model.
    """
    request = with_own_targets(request)
    space, screen = Workspace(request), Screen(console)
    if space.settings.gate.temperature == 0.0:
        raise RunError(
            "at temperature 0 a model answers like itself: nothing would be tested",
            where=request.taxonomy / "rft.toml",
            fix="set temperature in [gate]",
        )
    run = space.open_run()
    directory = model or request.model or Path(run.manifest.get("model") or space.model_directory)
    gauge = Gauge(space, screen)
    policy = space.spread(local_policy(directory))
    targets = {e.skill.name: gauge.suite(e, 0) for e in space.targets}
    watched = {e.skill.name: gauge.suite(e, gauge.better_prompt(policy, e)) for e in space.watched}
    watched |= {e.skill.name: gauge.suite(e, e.settings.demonstrations) for e in suite_environments(space)}
    suites = {**targets, **watched}
    speed = measure_speed(policy)
    positions = sum(2 * m.positions_of(repeats) for m in suites.values())
    screen.say(
        f"a model against itself: {2 * repeats * sum(m.calls for m in suites.values())} rollouts, {repeats} a task "
        f"and side, {minutes(positions, speed) + ' ' if speed else ''}(what is cached is free)"
    )
    with screen.bar("answers", sum(2 * m.calls for m in suites.values())) as advance:
        drawn = {name: _draws(gauge, policy, m, repeats, advance) for name, m in suites.items()}
    claims = []
    for repeat in range(repeats):
        sides: Sides = {name: (left[repeat], right[repeat]) for name, (left, right) in drawn.items()}
        itself = {"id": policy.id, "name": str(directory)}
        before, after = ({suites[name].suite.digest: pair[side] for name, pair in sides.items()} for side in (0, 1))
        inputs = judge_inputs({name: [m] for name, m in targets.items()}, watched, before, after, looks={})
        verdict = judge(*inputs, space.settings.gate, itself, itself)
        claims.append(claimed(verdict))
    result = {
        "model": {"id": policy.id, "name": str(directory)},
        "tasks": {name: m.calls for name, m in suites.items()},
        **summary(claims, space.settings.gate.alpha),
    }
    write_json(run.path("gate", "aa.json"), result)
    return result


def _draws(
    gauge: Gauge, policy: Policy, m: Measurement, repeats: int, advance: Any
) -> tuple[list[list[TaskResult]], list[list[TaskResult]]]:
    """Per side and repetition the results on one suite, in which a random answer stands for the greedy one.

    Without classes: whether a model beats the best constant answer is no question of one model against itself.
    """
    sides = []
    for offset in (1, 2):
        sampling = dataclasses.replace(m.suite.sampling, seed=m.suite.sampling.seed + offset)
        groups = gauge.draws(policy, m, repeats, sampling)
        advance(m.calls)
        sides.append(
            [
                [
                    TaskResult(
                        task_id=task.id,
                        group=task.group,
                        cls=None,
                        reference=task.reference,
                        prompt=task.messages[-1].content,
                        greedy=Answer(score=scores[repeat]),
                        sampled=(scores[repeat],),
                    )
                    for task, scores in zip(m.tasks, groups, strict=True)
                ]
                for repeat in range(repeats)
            ]
        )
    left, right = sides
    return left, right
