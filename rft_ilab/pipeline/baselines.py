"""Named baselines in the repository: where they lie, and how a model becomes one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.errors import RunError, SkillError
from rft_ilab.pipeline.gauge import Gauge, Measurement
from rft_ilab.pipeline.request import Request, Workspace, versions
from rft_ilab.pipeline.screen import Screen
from rft_ilab.pipeline.suites import suite_environments
from rft_ilab.regress.baseline import Baseline, StoredSuite, StoredTask, dumps, loads, short_id, stored_task
from rft_ilab.skills.reading import read_text
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import write_atomic
from rft_ilab.types import Policy, Task

FOLDER = "baselines"
SUFFIX = ".json"
MAX_BYTES = 64 * 1024 * 1024
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
EMBEDDED = "embedded"  # the name of the model that every installation has


def baseline_path(taxonomy: Path, name: str) -> Path:
    """Where the baseline of that name lies. Raises RunError if it can be no name."""
    if not NAME.fullmatch(name):
        fix = "use at most 64 letters, digits, dots, dashes and underscores"
        raise RunError(f"bad name {name[:80]!r} of a baseline", fix=fix)
    folder = taxonomy / FOLDER
    if folder.is_symlink():
        raise RunError("is a symbolic link", where=folder, fix="put the directory itself there")
    return folder / f"{name}{SUFFIX}"


def baseline_names(taxonomy: Path) -> list[str]:
    """Names of the stored baselines, sorted."""
    found = (taxonomy / FOLDER).glob(f"*{SUFFIX}")
    return sorted(path.name.removesuffix(SUFFIX) for path in found if NAME.fullmatch(path.name.removesuffix(SUFFIX)))


def read_baseline(taxonomy: Path, name: str) -> Baseline:
    """A stored baseline. Raises RunError if there is none of that name or the file is not as it was written."""
    path = baseline_path(taxonomy, name)
    if not path.is_symlink() and not path.exists():
        known = ", ".join(baseline_names(taxonomy)) or "none"
        fix = f"stored here: {known}; store one with: ilab rft baseline save {name}; a model's directory needs a slash"
        raise RunError(f"no stored baseline {name!r}", where=path, fix=fix)
    try:
        baseline = loads(read_text(path, MAX_BYTES), path)
    except SkillError as error:
        raise RunError(error.what, where=error.where, line=error.line, fix=error.fix) from error
    if baseline.name != name:
        raise RunError(f"holds the baseline {baseline.name[:80]!r}", where=path, fix="name the file after it")
    return baseline


def asked(m: Measurement, task: Task) -> list[object]:
    """Whatever decides what the model and the grader are given for a task: prompt (seeds included) and item."""
    prompt = build_prompt(m.environment.skill, task, m.suite.demonstrations)
    return [task.id, [message.as_dict() for message in prompt.messages], dict(task.item)]


def save_baseline(request: Request, name: str, *, console: Console) -> Path:
    """Measure ``request.model`` on every suite of the gate and store the results; returns the file.

    A target is measured with each of its prompts, a watched skill with the one at which the model does better on
    validation. Raises RunError, SkillError or PolicyError.
    """
    path = baseline_path(request.taxonomy, name)
    space, screen = Workspace(request), Screen(console)
    gauge = Gauge(space, screen)
    policy = space.student()
    prompts = {e.skill.name: gauge.better_prompt(policy, e) for e in space.environments}
    wanted = [gauge.suite(e, count) for e in space.targets for count in sorted({0, e.settings.demonstrations})]
    wanted += [gauge.suite(e, prompts[e.skill.name]) for e in space.watched]
    wanted += [gauge.suite(e, e.settings.demonstrations) for e in suite_environments(space)]
    with screen.bar("baseline", sum(m.calls for m in wanted) * 2) as advance:
        suites = [_stored(gauge, policy, m, advance) for m in wanted]
    baseline = Baseline(
        name=name,
        model_id=policy.id,
        model_name=EMBEDDED if request.model is None else request.model.resolve().name,
        versions=versions(),
        prompts=prompts,
        suites=suites,
    )
    write_atomic(path, dumps(baseline))
    return path


def _stored(gauge: Gauge, policy: Policy, m: Measurement, advance: Any) -> StoredSuite:
    sampling = m.suite.sampling
    tasks: dict[str, StoredTask] = {}
    for task, result in zip(m.tasks, gauge.measure(policy, m, advance), strict=True):
        if short_id(task.id) in tasks:
            raise RunError(f"{m.suite.name}: two tasks with the id {short_id(task.id)}", fix="remove one of them")
        tasks[short_id(task.id)] = stored_task(result, asked(m, task))
    return StoredSuite(
        skill=m.suite.name,
        demonstrations=m.suite.demonstrations,
        suite=m.suite.digest,
        grader=m.environment.grader.digest,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        seed=sampling.seed,
        samples=m.suite.samples,
        tasks=tasks,
    )
