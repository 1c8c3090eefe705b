"""The gate as a stage: measure baseline and candidate on the test splits, judge, write the verdict.

Every watched skill is measured with the prompt (with or without demonstrations) at which the baseline
does better on the validation split: a skill that the baseline cannot show would be vacuously unharmed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.pipeline.cost import minutes, sampling_positions
from rft_ilab.pipeline.gauge import Gauge, few_collections, label
from rft_ilab.pipeline.history import record
from rft_ilab.pipeline.request import Request, Workspace, local_policy, measure_speed, run_model
from rft_ilab.pipeline.screen import Screen
from rft_ilab.regress.gate import judge
from rft_ilab.regress.verdict import TargetInput, WatchedInput
from rft_ilab.results import FILE, Measured, write_results
from rft_ilab.store import name_of_run, write_json
from rft_ilab.types import Policy, Task


@few_collections()
def regress(request: Request, candidate: Path | None = None, *, console: Console) -> dict[str, Any]:
    """Judge ``candidate`` (default: the run's model) against the baseline; writes ``gate/verdict.json``.

    Generations and grades come from the cache where nothing changed. Raises RunError or PolicyError
    when there is no model to judge.
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
        everything = [m for suites in targets.values() for m in suites] + list(watched.values())
        asked = [suites[0] for suites in targets.values()] + list(watched.values())
        rollouts = sum(m.calls * (1 + m.suite.samples) for m in everything + asked)
        policy = local_policy(directory)
        screen.say(_cost(rollouts, gauge.missing(baseline, everything) + gauge.missing(policy, asked), baseline))
        with screen.bar("baseline", sum(m.calls for m in everything) * 2) as advance:
            before = {m.suite.digest: gauge.measure(baseline, m, advance) for m in everything}
        baseline_id = baseline.id
        del baseline
        with screen.bar("candidate", sum(m.calls for m in asked) * 2) as advance:
            after = {m.suite.digest: gauge.measure(policy, m, advance) for m in asked}
        verdict = judge(
            [
                TargetInput(
                    skill=name,
                    before={label(m): before[m.suite.digest] for m in suites},
                    after=after[suites[0].suite.digest],
                )
                for name, suites in targets.items()
            ],
            [
                WatchedInput(
                    skill=name,
                    tier=m.suite.tier,
                    margin=m.suite.margin,
                    prompt_label=label(m),
                    before=before[m.suite.digest],
                    after=after[m.suite.digest],
                )
                for name, m in watched.items()
            ],
            space.settings.gate,
            {"id": baseline_id, "name": str(baseline_directory)},
            {"id": policy.id, "name": str(directory)},
            run=name_of_run(run.directory.absolute()),
        )
        measured: list[Measured] = [(m.suite, "baseline", baseline_id, before[m.suite.digest]) for m in everything]
        measured += [(m.suite, "candidate", policy.id, after[m.suite.digest]) for m in asked]
        write_results(run.path(*FILE), measured)
        facts |= {"outcome": verdict["outcome"], "rollouts": rollouts}
        facts |= {"taxonomy": str(request.taxonomy.absolute()), "command": [Path(sys.argv[0]).name, *sys.argv[1:]]}
        facts["graders"] = {e.skill.name: e.skill.grader_digest for e in space.environments}
        write_json(run.path("gate", "verdict.json"), verdict)
        # The verdict of another candidate does not erase what was said of this one.
        write_json(run.path("gate", "verdicts", f"{policy.id.split(':')[1][:12]}.json"), verdict)
        record(request, run.directory, verdict, everything, screen)
    return verdict


def _cost(rollouts: int, missing: Sequence[tuple[Sequence[Task], int]], policy: Policy) -> str:
    """One line. The model is loaded and timed only if something has to be asked of one."""
    line, asked = f"gate: {rollouts} test rollouts of baseline and candidate", sum(len(t) * n for t, n in missing)
    if not asked:
        return f"{line}; all answers are cached"
    if asked < rollouts:
        line += f", {rollouts - asked} of them cached"
    speed = measure_speed(policy)
    return line + (f", {minutes(sum(sampling_positions(t, n) for t, n in missing), speed)}" if speed else "")
