"""The gate as a stage: measure baseline and candidate on the test splits, judge, write the verdict.

Every watched skill is measured with the prompt (with or without demonstrations) at which the baseline
does better on the validation split: a skill that the baseline cannot show would be vacuously unharmed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.pipeline.cost import minutes, sampling_positions
from rft_ilab.pipeline.gauge import Gauge, Measurement
from rft_ilab.pipeline.inputs import Targets, Watched, judge_inputs
from rft_ilab.pipeline.request import Request, Workspace, local_policy, measure_speed, run_model
from rft_ilab.pipeline.screen import Screen
from rft_ilab.pipeline.sequential import Drawn, until_decided
from rft_ilab.regress.gate import judge
from rft_ilab.store import write_json


def regress(
    request: Request, candidate: Path | None = None, *, batch: int | None = None, console: Console
) -> dict[str, Any]:
    """Judge ``candidate`` (default: the run's model) against the baseline; writes ``gate/verdict.json``.

    Generations and grades come from the cache where nothing changed. With ``batch``, suites are drawn in batches of so
    many tasks until they are decided; both models are then in memory. Raises RunError or PolicyError when there is no
    model to judge.
    """
    space, screen = Workspace(request), Screen(console)
    run = space.open_run()
    directory = candidate if candidate is not None else run_model(run)
    baseline_directory = request.model or Path(run.manifest.get("model") or space.model_directory)
    with run.stage("regate" if run.done("gate") else "gate") as facts:
        baseline = local_policy(baseline_directory)
        gauge = Gauge(space, screen)
        targets = {
            e.skill.name: [gauge.suite(e, demonstrations) for demonstrations in sorted({0, e.settings.demonstrations})]
            for e in space.targets
        }
        watched = {e.skill.name: gauge.suite(e, gauge.better_prompt(baseline, e)) for e in space.watched}
        everything, asked = _asked(targets, watched)
        rollouts = sum(m.calls * (1 + m.suite.samples) for m in everything + asked)
        speed = measure_speed(baseline)
        positions = sum(sampling_positions(m.tasks, 1 + m.suite.samples) for m in everything + asked)
        screen.say(
            f"gate: {'at most ' if batch else ''}{rollouts} test rollouts of baseline and candidate, "
            + (f"{minutes(positions, speed)} " if speed else "")
            + "(what is cached is free)"
        )
        drawn = Drawn(targets=targets, watched=watched, looks={}, before={}, after={})
        if batch:
            both = partial(gauge.measure, baseline), partial(gauge.measure, local_policy(directory))
            drawn = until_decided(*both, targets, watched, space.settings.gate, batch, screen)
            everything, asked = _asked(drawn.targets, drawn.watched)
            rollouts = sum(m.calls * (1 + m.suite.samples) for m in everything + asked)
            del both
        before, after = drawn.before, drawn.after
        open_ = [m for m in everything if m.suite.digest not in before]
        with screen.bar("baseline", sum(m.calls for m in open_) * 2) as advance:
            before |= {m.suite.digest: gauge.measure(baseline, m, advance) for m in open_}
        baseline_id = baseline.id
        del baseline
        policy = local_policy(directory)
        open_ = [m for m in asked if m.suite.digest not in after]
        with screen.bar("candidate", sum(m.calls for m in open_) * 2) as advance:
            after |= {m.suite.digest: gauge.measure(policy, m, advance) for m in open_}
        verdict = judge(
            *judge_inputs(drawn.targets, drawn.watched, before, after, drawn.looks),
            space.settings.gate,
            {"id": baseline_id, "name": str(baseline_directory)},
            {"id": policy.id, "name": str(directory)},
        )
        facts |= {"outcome": verdict["outcome"], "rollouts": rollouts}
        write_json(run.path("gate", "verdict.json"), verdict)
        # The verdict of another candidate does not erase what was said of this one.
        write_json(run.path("gate", "verdicts", f"{policy.id.split(':')[1][:12]}.json"), verdict)
    return verdict


def _asked(targets: Targets, watched: Watched) -> tuple[list[Measurement], list[Measurement]]:
    """What the baseline is asked, and what the candidate."""
    everything = [m for suites in targets.values() for m in suites] + list(watched.values())
    return everything, [suites[0] for suites in targets.values()] + list(watched.values())
