"""The gate as a stage: measure baseline and candidate on the test splits, judge, write the verdict.

Every watched skill is measured with the prompt (with or without demonstrations) at which the baseline
does better on the validation split: a skill that the baseline cannot show would be vacuously unharmed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.pipeline.compared import compared_with, number_formats
from rft_ilab.pipeline.cost import minutes
from rft_ilab.pipeline.gauge import Gauge, Measurement, Missing, few_collections
from rft_ilab.pipeline.history import record
from rft_ilab.pipeline.inputs import Targets, Watched, judge_inputs
from rft_ilab.pipeline.question import KEY, question_of
from rft_ilab.pipeline.request import Request, Workspace, local_policy, measure_speed, run_model, with_own_targets
from rft_ilab.pipeline.screen import Screen
from rft_ilab.pipeline.sequential import Drawn, Early, Method, at_once, until_decided
from rft_ilab.pipeline.suites import suite_environments
from rft_ilab.regress.gate import judge
from rft_ilab.results import FILE, Measured, write_results
from rft_ilab.store import name_of_run, write_json
from rft_ilab.types import Policy


@few_collections()
def regress(
    request: Request,
    candidate: Path | None = None,
    *,
    batch: int | None = None,
    method: Method = "auto",
    console: Console,
) -> dict[str, Any]:
    """Judge ``candidate`` (default: the run's model) against the baseline; writes ``gate/verdict.json``.

    Generations and grades come from the cache where nothing changed. With ``batch``, suites are drawn in batches of so
    many tasks until they are decided, by ``method``; both models are then in memory. Raises RunError or PolicyError
    when there is no model to judge.
    """
    request = with_own_targets(request)
    space, screen = Workspace(request), Screen(console)
    run = space.open_run()
    directory = candidate if candidate is not None else run_model(run)
    suites_asked = suite_environments(space)
    with run.stage("regate" if run.done("gate") else "gate") as facts:
        gauge = Gauge(space, screen)
        baseline = compared_with(space, run, gauge, lambda directory: space.spread(local_policy(directory)))
        targets = {
            e.skill.name: [gauge.suite(e, demonstrations) for demonstrations in sorted({0, e.settings.demonstrations})]
            for e in space.targets
        }
        watched = {e.skill.name: gauge.suite(e, baseline.better_prompt(e)) for e in space.watched}
        watched |= {e.skill.name: gauge.suite(e, e.settings.demonstrations) for e in suites_asked}
        everything, asked = _asked(targets, watched)
        rollouts = sum(m.calls * (1 + m.suite.samples) for m in everything + asked)
        policy = space.spread(local_policy(directory))
        missing = gauge.missing(policy, asked)
        if baseline.policy:
            missing += gauge.missing(baseline.policy, everything)
        screen.say(_cost(rollouts, missing, baseline.policy or policy, at_most=bool(batch)))
        drawn = Drawn(targets=targets, watched=watched, looks={}, before={}, after={})
        if batch:
            asks = at_once(baseline.measure, everything) if request.baseline else baseline.measure
            drawn = until_decided(
                asks,
                partial(gauge.measure, policy),
                targets,
                watched,
                space.settings.gate,
                Early(batch=batch, method=method),
                run,
                [baseline.id, policy.id],
                screen,
            )
            everything, asked = _asked(drawn.targets, drawn.watched)
            rollouts = sum(m.calls * (1 + m.suite.samples) for m in everything + asked)
        before, after = drawn.before, drawn.after
        open_ = [m for m in everything if m.suite.digest not in before]
        with screen.bar("baseline", sum(m.calls for m in open_) * 2) as advance:
            before |= {m.suite.digest: baseline.measure(m, advance) for m in open_}
        baseline.policy = None  # two models need not fit into memory
        if warning := number_formats(baseline.id, policy.id):
            screen.say(warning)
        open_ = [m for m in asked if m.suite.digest not in after]
        with screen.bar("candidate", sum(m.calls for m in open_) * 2) as advance:
            after |= {m.suite.digest: gauge.measure(policy, m, advance) for m in open_}
        answered = {m.suite.name: after[m.suite.digest] for m in asked}
        for m in everything:
            before[m.suite.digest] = baseline.explained(m, before[m.suite.digest], answered[m.suite.name])
        verdict = judge(
            *judge_inputs(drawn.targets, drawn.watched, before, after, drawn.looks, baseline.note),
            space.settings.gate,
            baseline.facts(),
            {"id": policy.id, "name": str(directory)},
            run=name_of_run(run.directory.absolute()),
        )
        if request.base is not None:
            request.base.annotate(verdict)
        measured: list[Measured] = [(m.suite, "baseline", baseline.id, before[m.suite.digest]) for m in everything]
        measured += [(m.suite, "candidate", policy.id, after[m.suite.digest]) for m in asked]
        write_results(run.path(*FILE), measured)
        facts |= {"outcome": verdict["outcome"], "rollouts": rollouts}
        facts |= {"taxonomy": str(request.own_taxonomy.absolute()), "command": [Path(sys.argv[0]).name, *sys.argv[1:]]}
        facts[KEY] = question_of(space, candidate, batch)
        facts["graders"] = {m.suite.name: m.environment.grader.digest for m in everything}
        write_json(run.path("gate", "verdict.json"), verdict)
        # The verdict of another candidate does not erase what was said of this one.
        write_json(run.path("gate", "verdicts", f"{policy.id.split(':')[1][:12]}.json"), verdict)
        record(request, run.directory, verdict, everything, screen)
    return verdict


def _asked(targets: Targets, watched: Watched) -> tuple[list[Measurement], list[Measurement]]:
    """What the baseline is asked, and what the candidate."""
    everything = [m for suites in targets.values() for m in suites] + list(watched.values())
    return everything, [suites[0] for suites in targets.values()] + list(watched.values())


def _cost(rollouts: int, missing: Sequence[Missing], policy: Policy, *, at_most: bool) -> str:
    """One line. The model is loaded and timed only if something has to be asked of one."""
    asked = sum(m.answers for m in missing)
    line = f"gate: {'at most ' if at_most else ''}{rollouts} test rollouts of baseline and candidate"
    if not asked:
        return f"{line}; all answers are cached"
    if asked < rollouts:
        line += f", {rollouts - asked} of them cached"
    speed = measure_speed(policy)
    return line + (f", {minutes(sum(m.positions for m in missing), speed)}" if speed else "")
