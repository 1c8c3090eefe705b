"""Measurements and results, as the rules of the verdict take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rft_ilab.pipeline.gauge import Measurement, label
from rft_ilab.regress.anytime import Stage
from rft_ilab.regress.verdict import TargetInput, TaskResult, WatchedInput

Targets = Mapping[str, Sequence[Measurement]]  # by skill; the first prompt is the one the candidate is asked with
Watched = Mapping[str, Measurement]
Results = Mapping[str, Sequence[TaskResult]]  # by the suite's digest


def judge_inputs(
    targets: Targets,
    watched: Watched,
    before: Results,
    after: Results,
    looks: Mapping[str, Stage],
    note: Callable[[str], str] = lambda skill: "",
) -> tuple[list[TargetInput], list[WatchedInput]]:
    """``looks`` by skill, where a suite was not measured at once; ``note`` says why a skill's baseline has gaps."""
    return [
        TargetInput(
            skill=name,
            before={label(m): before[m.suite.digest] for m in prompts},
            after=after[prompts[0].suite.digest],
            note=note(name),
            look=looks.get(name),
        )
        for name, prompts in targets.items()
    ], [
        WatchedInput(
            skill=name,
            tier=m.suite.tier,
            margin=m.suite.margin,
            prompt_label=label(m),
            before=before[m.suite.digest],
            after=after[m.suite.digest],
            note=note(name),
            look=looks.get(name),
        )
        for name, m in watched.items()
    ]
