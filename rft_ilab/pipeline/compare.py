"""Two and many models on the test splits: measured through the cache, then compared pair by pair.

Every model gets the same prompts, and which they are depends on no model: the skill's bare instruction for skills of
tier target, as an application sends it and as the gate judges them; for all others the demonstrations that
``rft.toml`` gives them, since without any most models show little that could be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from rft_ilab.errors import RunError, SkillError
from rft_ilab.pipeline.contenders import Contender
from rft_ilab.pipeline.cost import minutes
from rft_ilab.pipeline.gauge import Gauge, Measurement, label
from rft_ilab.pipeline.request import Request, Workspace, environments_of
from rft_ilab.pipeline.screen import Screen
from rft_ilab.regress.compare import ComparedSuite, Comparison, compare_models
from rft_ilab.report.wording import count
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tree import find_skills
from rft_ilab.types import Sampling, Suite


class Field(Workspace):
    """The skills to compare on, all of them or the ``only`` ones. Nothing is trained, so there need be no target."""

    def __init__(self, request: Request, only: Sequence[str]) -> None:
        self.request, self.settings = request, request.settings
        skills = find_skills(request.taxonomy, request.settings)
        names = {skill.name for skill in skills}
        if unknown := set(only) - names:
            raise SkillError(
                f"no skill {min(unknown)!r}", where=request.taxonomy, fix=f"one of {', '.join(sorted(names))}"
            )
        self.targets = []
        environments = environments_of([s for s in skills if not only or s.name in only], request.settings)
        self.watched = [self.spread_grader(e) for e in environments]


def compare(
    request: Request,
    contenders: Sequence[Contender],
    *,
    only: Sequence[str] = (),
    demonstrations: int | None = None,
    samples: int = 0,
    console: Console,
) -> Comparison:
    """Measure what is not cached yet, and compare. ``demonstrations`` is for all skills, see above where it is None.

    Raises SkillError for bad skills, RunError if none of them has test tasks, PolicyError for what is no model.
    """
    space, screen = Field(request, only), Screen(console)
    gauge = Gauge(space, screen)
    measurements = []
    for e in space.watched:
        if e.split("test"):
            measurements.append(_measurement(space, e, demonstrations, samples))
        else:
            screen.say(f"{e.skill.name}: no test tasks, left out")
    if not measurements:
        raise RunError("no skill has test tasks to compare on", where=request.taxonomy, fix='add rows of split "test"')
    _say_cost(space, screen, contenders, measurements)
    total = 2 * sum(m.calls for m in measurements)
    measured = {}
    for c in contenders:
        with screen.bar(c.label, total) as advance:
            measured[c.label] = c.measure(gauge, measurements, advance)
    return compare_models(
        [
            ComparedSuite(
                skill=m.suite.name,
                margin=m.suite.margin,
                prompt_label=label(m),
                results={name: results[i] for name, results in measured.items()},
            )
            for i, m in enumerate(measurements)
        ],
        {c.label: c.id for c in contenders},
        space.settings.gate.alpha,
    )


def _measurement(space: Field, e: Environment, demonstrations: int | None, samples: int) -> Measurement:
    """The test split; sampled as the gate samples, so that both share the cache."""
    gate = space.settings.gate
    tasks = sorted(e.split("test"), key=lambda task: task.id)
    usual = 0 if e.skill.tier == "target" else e.settings.demonstrations
    suite = Suite(
        name=e.skill.name,
        task_ids=tuple(task.id for task in tasks),
        samples=samples,
        sampling=Sampling(temperature=gate.temperature, max_tokens=e.settings.max_tokens, seed=gate.seed),
        demonstrations=usual if demonstrations is None else demonstrations,
        tier=e.skill.tier,
        margin=space.margin(e),
    )
    return Measurement(e, suite, tasks)


def _say_cost(
    space: Field, screen: Screen, contenders: Sequence[Contender], measurements: Sequence[Measurement]
) -> None:
    total = len(contenders) * sum(m.calls * (1 + m.suite.samples) for m in measurements)
    answers, seconds, unknown = 0, 0.0, False
    for c in contenders:
        todo, positions, speed = c.todo(measurements, space.cache)
        answers += todo
        seconds += positions / speed if speed else 0.0
        unknown = unknown or (bool(todo) and not speed)
    same = {c.id: c.label for c in reversed(contenders)}
    for c in contenders:
        if same[c.id] != c.label:
            screen.say(f"{c.label} and {same[c.id]} are the same model")
    tasks = sum(m.calls for m in measurements)
    sizes = (count(len(contenders), "model"), count(len(measurements), "skill"), count(tasks, "task"))
    said = f"compare: {', '.join(sizes)}; "
    said += f"{answers} of {total} answers are to be sampled" if answers else f"all {total} answers are cached"
    screen.say(said + (f", {minutes(seconds, 1.0)}" if answers and not unknown else ""))
