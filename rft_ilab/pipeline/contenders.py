"""What can be compared: a model by directory, by the run that tuned it, or the embedded one.

:class:`Contender` is all that the comparison knows. Results that were stored elsewhere would be another class with
these methods, and a line in :func:`contender`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from rft_ilab.errors import RunError
from rft_ilab.pipeline.cost import sampling_positions
from rft_ilab.pipeline.gauge import Gauge, Measurement
from rft_ilab.pipeline.request import local_policy, measure_speed, run_model
from rft_ilab.regress.verdict import TaskResult
from rft_ilab.rollouts import missing_groups
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import Cache, Run
from rft_ilab.types import Sampling

EMBEDDED = "embedded"
BASE = ":base"


class Contender(Protocol):
    """``label`` heads its column. ``id`` says whose answers they are; it is known once :meth:`todo` was asked."""

    label: str
    id: str

    def todo(self, measurements: Sequence[Measurement], cache: Cache) -> tuple[int, float, float | None]:
        """Answers to sample, token positions to compute for them, and positions a second (None: unknown)."""
        ...

    def measure(
        self, gauge: Gauge, measurements: Sequence[Measurement], advance: Callable[[int], None]
    ) -> list[list[TaskResult]]:
        """Its results on every suite, in order."""
        ...


class ModelContender:
    """A model directory; it is in memory only while it is asked."""

    def __init__(self, label: str, directory: Path) -> None:
        self.label, self.directory, self.id = label, directory, ""

    def todo(self, measurements: Sequence[Measurement], cache: Cache) -> tuple[int, float, float | None]:
        policy = local_policy(self.directory)
        self.id = policy.id
        answers, positions = 0, 0.0
        for m in measurements:
            prompts = [build_prompt(m.environment.skill, task, m.suite.demonstrations) for task in m.tasks]
            greedy = Sampling(temperature=0.0, max_tokens=m.suite.sampling.max_tokens)
            for n, sampling in ((1, greedy), (m.suite.samples, m.suite.sampling)):
                missing = missing_groups(policy, prompts, n, sampling, cache) if n else []
                answers += n * len(missing)
                positions += sampling_positions([m.tasks[i] for i in missing], n)
        return answers, positions, measure_speed(policy) if answers else None

    def measure(
        self, gauge: Gauge, measurements: Sequence[Measurement], advance: Callable[[int], None]
    ) -> list[list[TaskResult]]:
        policy = gauge.space.spread(local_policy(self.directory))
        self.id = policy.id
        return [gauge.measure(policy, m, advance) for m in measurements]


def contenders(arguments: Sequence[str], runs: Path) -> list[Contender]:
    """One contender an argument, with labels that differ. Raises RunError or PolicyError for what is no model."""
    found = [contender(argument, runs) for argument in arguments]
    for repeated in (label for label, count in Counter(c.label for c in found).items() if count > 1):
        for argument, c in zip(arguments, found, strict=True):
            c.label = argument if c.label == repeated else c.label
    if twice := [label for label, count in Counter(c.label for c in found).items() if count > 1]:
        raise RunError(f"{twice[0]} is named twice", fix="name every model once")
    return found


def contender(argument: str, runs: Path) -> Contender:
    """The model that ``argument`` names: ``embedded``, a run in ``runs`` or by path (its tuned model), ``RUN:base``
    (what that run started from), or a model directory. Raises RunError or PolicyError."""
    from rft_ilab.policy.local.embedded import embedded_model
    from rft_ilab.policy.local.model import check_model_directory

    if argument == EMBEDDED:
        return ModelContender(EMBEDDED, embedded_model())
    if run := _run(argument, runs):
        return ModelContender(model_name(run.directory), run_model(run))
    if argument.endswith(BASE) and (run := _run(argument.removesuffix(BASE), runs)):
        base = run.manifest.get("model")
        if not isinstance(base, str) or not Path(base).is_dir():
            raise RunError(
                "the model that this run started from is not there", where=run.directory, fix="give its directory"
            )
        return ModelContender(model_name(run.directory) + BASE, Path(base))
    directory = Path(argument).expanduser()
    if not argument.strip() or not directory.is_dir():
        raise RunError(
            f"no model {argument!r}",
            fix=f"name a model directory, {EMBEDDED}, a run or RUN{BASE}; runs are in {runs}",
        )
    check_model_directory(directory)
    return ModelContender(model_name(directory), directory)


def _run(argument: str, runs: Path) -> Run | None:
    """The run of that name or path, if there is one."""
    is_path = os.sep in argument or argument in (".", "..") or argument.startswith("~")
    for directory in [Path(argument).expanduser()] if is_path else [runs / argument, Path(argument)]:
        if argument.strip() and (directory / "manifest.json").is_file():
            return Run.open(directory)
    return None


def model_name(directory: Path) -> str:
    """What people call it: its last part, or the run's name where it is the model of a run."""
    path = directory.resolve()
    return path.parent.name if path.name == "model" and (path.parent / "manifest.json").is_file() else path.name
