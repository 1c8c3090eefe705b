"""The ready suites of a gate. Only the gate loads them: training must not see what judges it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rft_ilab.config import Settings, SuiteSettings
from rft_ilab.pipeline.cost import sampling_positions
from rft_ilab.pipeline.request import Workspace
from rft_ilab.suites import PREFIX, SuiteEnvironment, load_suite
from rft_ilab.suites.catalog import SUITES
from rft_ilab.suites.loading import sizes


def suite_environments(space: Workspace) -> list[SuiteEnvironment]:
    """The suites of ``[suites]`` and ``--suite``, in that order. Raises SkillError or GraderError, see load_suite."""
    include = space.request.lm_eval_include
    return [load_suite(name, settings, include) for name, settings in space.settings.suites.items()]


def suite_of(name: str, settings: Settings, demonstrations: int) -> SuiteEnvironment | None:
    """The packaged suite that a verdict calls ``name``, all of it; None if there is none, or if the settings no longer
    tell which demonstrations were shown."""
    short = name.removeprefix(PREFIX)
    if short == name or short not in SUITES:
        return None
    own = settings.suites.get(short, SuiteSettings())
    if not demonstrations:
        own = dataclasses.replace(own, limit=None, demonstrations=0)
    return load_suite(short, own) if own.demonstrations == demonstrations else None


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of ``ilab rft suites``. ``seconds`` of one model answering all of it once, None if not measured."""

    name: str
    title: str
    tasks: int
    groups: int
    graders: str
    licence: str
    origin: str
    max_tokens: int
    seconds: float | None


def listed(speed: float | None = None) -> list[Listed]:
    """The packaged suites; ``speed`` is in positions a second."""
    rows = []
    for name, definition in SUITES.items():
        tasks, groups = sizes(name)
        seconds = None
        if speed:
            suite = load_suite(name)
            seconds = sampling_positions(suite.tasks, 1, suite.answer_tokens) / speed
        rows.append(
            Listed(
                name=name,
                title=definition.title,
                tasks=tasks,
                groups=groups,
                graders=definition.graders,
                licence=definition.licence,
                origin=definition.origin,
                max_tokens=definition.max_tokens,
                seconds=seconds,
            )
        )
    return rows
