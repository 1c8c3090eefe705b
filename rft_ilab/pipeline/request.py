"""What a command asks for, and what the stages share: skills with graders, the run, the cache, the model."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rft_ilab import __version__
from rft_ilab.config import Settings
from rft_ilab.errors import RunError, SkillError
from rft_ilab.grading.engine import build_grader
from rft_ilab.grading.generator import FILE, MAX_BYTES, has_generator
from rft_ilab.grading.proof.lint_skill import quick_findings
from rft_ilab.grading.proof.prove import REMOTE, has_part
from rft_ilab.pipeline.judging import Base
from rft_ilab.policy.local.lazy import LazyPolicy
from rft_ilab.rollouts import Environment
from rft_ilab.scaleout.openinstruct.site import Site
from rft_ilab.skills.reading import read_text
from rft_ilab.skills.tasks import FILE as TASKS
from rft_ilab.skills.tasks import MAX_BYTES as MAX_TASKS_BYTES
from rft_ilab.skills.tasks import load_tasks, scan_tasks
from rft_ilab.skills.tree import find_skills
from rft_ilab.store import Cache, Run, user_directory
from rft_ilab.suites import check_suites
from rft_ilab.types import Policy, Rollout, Skill, digest

if TYPE_CHECKING:
    from rft_ilab.scaleout.ray_cluster import RayCluster

VERSIONED = ("torch", "transformers", "peft", "instructlab")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One command's wishes. ``model`` None is the embedded model; ``endpoint`` samples the verified data
    (``endpoint_model``, else the first model listed there), with at most ``concurrency`` calls at a time, each given
    ``timeout_s`` seconds; ``targets`` empty means the skills of tier target (where a run is judged, those it
    learnt, see :func:`with_own_targets`), with ``no_target`` none at all;
    ``control`` is one of ``types.CONTROLS`` where GRPO's reward is to be replaced. With a ``site``,
    Open-Instruct trains there. The gate compares with the stored ``baseline`` of that name, if there is one, instead
    of ``model``, and ``base`` is the git revision that judges. It appends its verdict to every file of ``histories``.
    ``lm_eval_include`` holds further tasks of lm-evaluation-harness. At ``ray``, the address of a cluster, answers are
    graded and local models sampled.
    """

    taxonomy: Path
    run: Path
    settings: Settings
    model: Path | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    concurrency: int = 16
    timeout_s: float = 120.0
    targets: tuple[str, ...] = ()
    no_target: bool = False
    control: str = ""
    baseline: str = ""
    base: Base | None = None
    histories: tuple[Path, ...] = ()
    lm_eval_include: Path | None = None
    site: Site | None = None
    ray: str = ""

    @property
    def own_taxonomy(self) -> Path:
        """The taxonomy of the working tree, also where a revision's judges."""
        return self.base.own if self.base else self.taxonomy


def with_own_targets(request: Request) -> Request:
    """The request, with the targets of its run where it names none: a run is judged by what it set out to learn.

    Raises SkillError if the taxonomy does not have them any more.
    """
    if request.targets or request.no_target:
        return request
    identity = Run.open(request.run).manifest.get("identity")
    targets = identity.get("targets") if isinstance(identity, dict) else None
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        return request
    names = {skill.name for skill in find_skills(request.taxonomy, request.settings)}
    if gone := sorted(set(targets) - names):
        raise SkillError(
            f"no skill {gone[0]!r}, which this run learnt", where=request.taxonomy, fix="name others with --target"
        )
    return dataclasses.replace(request, targets=tuple(targets))


class Workspace:
    """Everything loaded for a request; loading is lazy where it is heavy. Raises SkillError on bad skills."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.settings = request.settings
        skills = find_skills(request.taxonomy, request.settings)
        names = {skill.name for skill in skills}
        if unknown := set(request.targets) - names:
            raise SkillError(
                f"no skill {min(unknown)!r}", where=request.taxonomy, fix=f"one of {', '.join(sorted(names))}"
            )
        check_suites(request.settings.suites, names, request.taxonomy / "rft.toml")
        wanted = set(request.targets) or {skill.name for skill in skills if skill.tier == "target"}
        if request.no_target:
            wanted = set()
        elif not wanted:
            raise SkillError(
                "no skill of tier target", where=request.taxonomy / "rft.toml", fix="set one, or use --target"
            )
        environments = [self.spread_grader(e) for e in environments_of(skills, request.settings)]
        self.targets = [e for e in environments if e.skill.name in wanted]
        self.watched = [e for e in environments if e.skill.name not in wanted]
        for e in self.targets:
            for split in ("train", "val", "test"):
                if not e.split(split):  # type: ignore[arg-type]
                    raise SkillError(f"no {split} tasks", where=e.skill.directory / "tasks.jsonl", fix="add tasks")

    @property
    def environments(self) -> Sequence[Environment]:
        return [*self.targets, *self.watched]

    @cached_property
    def cluster(self) -> RayCluster | None:
        """Where answers are graded and models sampled, if not here. Raises RunError if it is not there."""
        if not self.request.ray:
            return None
        from rft_ilab.scaleout.ray_cluster import RayCluster

        return RayCluster(self.request.ray)

    def spread_grader(self, environment: Environment) -> Environment:
        """The skill with its grader on the cluster, if there is one and it helps."""
        if self.cluster is None:
            return environment
        from rft_ilab.scaleout.ray_spread import spread_grader

        grader = spread_grader(self.cluster, environment.skill, environment.grader)
        return dataclasses.replace(environment, grader=grader)

    def spread(self, policy: Policy) -> Policy:
        """The policy, on the cluster if there is one and it is a model in this process."""
        if self.cluster is None or not isinstance(policy, LazyPolicy):
            return policy
        from rft_ilab.scaleout.ray_spread import RayPolicy

        return RayPolicy(self.cluster, policy)

    @cached_property
    def cache(self) -> Cache:
        return user_cache()

    @cached_property
    def model_directory(self) -> Path:
        """The model to start from; converts the embedded one on first use. Raises PolicyError."""
        from rft_ilab.policy.local.embedded import embedded_model
        from rft_ilab.policy.local.identity import check_model_directory

        if self.request.model is None:
            return embedded_model()
        check_model_directory(self.request.model)
        return self.request.model

    def margin(self, environment: Environment) -> float:
        own = environment.settings.margin
        return self.settings.gate.margin if own is None else own

    def start_run(self) -> Run:
        """Create or resume the run. Its identity is all that training depends on.

        Raises RunError when the directory belongs to a run with other settings, SkillError when the grader of a
        target can be cheated.
        """
        from rft_ilab.policy.local.model import directory_digest

        for environment in self.targets:
            _refuse_exploitable(environment)
        settings = dataclasses.asdict(self.settings)
        identity = {
            "model": directory_digest(self.model_directory),
            "endpoint": self._who_sampled(),
            "targets": [e.skill.name for e in self.targets],
            "data": settings["data"],
            # How often a run is saved changes nothing in it.
            "train": {key: value for key, value in settings["train"].items() if key != "checkpoint_every"},
            "skills": {e.skill.name: _identity(e) for e in self.environments},
        }
        # Only where there is one: runs from before there were controls are resumed, too.
        control = {"control": self.request.control} if self.request.control else {}
        manifest: dict[str, Any] = {
            **control,
            "identity": identity | control,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "versions": versions(),
            "skills": {
                e.skill.name: {"commit": e.skill.commit, "grader_digest": e.skill.grader_digest}
                for e in self.environments
            },
            "model": str(self.model_directory),
            "seed": self.settings.train.seed,
        }
        return Run.create(self.request.run, manifest)

    def _who_sampled(self) -> str:
        """The server of the verified data, as a run's identity has it. Where these are done nobody need name it again:
        another command, or another engine, goes on with them."""
        asked = " ".join(filter(None, (self.request.endpoint, self.request.endpoint_model)))
        if asked or not (self.request.run / "manifest.json").exists():
            return asked
        run = Run.open(self.request.run)
        return str(run.manifest.get("identity", {}).get("endpoint", "")) if run.done("data") else ""

    def open_run(self) -> Run:
        return Run.open(self.request.run)

    def teacher(self) -> Policy:
        """Who samples the candidate answers: the endpoint if one is given, else the model itself."""
        if self.request.endpoint:
            from rft_ilab.policy.endpoint import EndpointPolicy

            return EndpointPolicy(
                self.request.endpoint,
                self.request.endpoint_model,
                cache=self.cache,
                concurrency=self.request.concurrency,
                timeout_s=self.request.timeout_s,
            )
        return self.student()

    def student(self) -> Policy:
        """Who is to be trained."""
        return self.spread(local_policy(self.model_directory))


def environments_of(skills: Sequence[Skill], settings: Settings) -> list[Environment]:
    """The skills ready for use. Raises SkillError on a bad one."""
    environments = [
        Environment.of(skill, load_tasks(skill), build_grader(skill), settings.skill(skill.name)) for skill in skills
    ]
    cache = user_cache()
    for environment in environments:
        _check_references(environment, cache)
    return environments


def user_cache() -> Cache:
    """Where answers and grades are kept."""
    return Cache(user_directory("cache") / "results.sqlite")


def _identity(e: Environment) -> str:
    """Whatever of a skill decides what a run does: a task that moved to another split makes another run."""
    tasks = [[t.id, t.split, t.group, dict(t.item)] for t in e.tasks]
    seeds = [[seed.prompt, seed.answer] for seed in e.skill.seeds]
    generator = read_text(e.skill.directory / FILE, MAX_BYTES) if has_generator(e.skill) else ""
    return digest([tasks, seeds, generator, e.skill.grader_digest, dataclasses.asdict(e.settings)])


def _check_references(environment: Environment, cache: Cache) -> None:
    """Every authored answer must pass its own grader, or training and gate would rest on wrong answers.

    What has been found right is not tried again; but what a grader found that asks others may change without a trace.
    Raises SkillError that names the line of the first one that does not.
    """
    skill, tasks = environment.skill, environment.skill.directory / TASKS
    key = digest(["references accepted", skill.grader_digest, read_text(tasks, MAX_TASKS_BYTES)])
    if cache.get(key):
        return
    lined, _ = scan_tasks(environment.skill)
    pairs = [
        (task, Rollout(task_id=task.id, index=0, policy_id="reference", completion=task.reference, stop="eos"))
        for _, task in lined
    ]
    for (line, _), grade in zip(lined, environment.grader.grade(pairs), strict=True):
        if not grade.passed:
            raise SkillError(
                f"the grader does not accept the reference: {grade.error or grade.reason}",
                where=tasks,
                line=line,
                fix="correct the reference or the grader; ilab taxonomy lint lists them all",
            )
    if not has_part(skill.grader, REMOTE):
        cache.put([(key, True)])


def _refuse_exploitable(environment: Environment) -> None:
    """RL finds every hole of its grader, so what the quick proof finds is closed (or waived, with a reason) first.

    Raises SkillError with the first error that lint would report.
    """
    lined, _ = scan_tasks(environment.skill)
    for finding in quick_findings(build_grader(environment.skill), environment.skill, lined):
        if finding.severity == "error":
            raise SkillError(
                f"the grader can be cheated: {finding.message}",
                where=finding.file,
                line=finding.line,
                fix=f"{finding.fix}; ilab rft grader-test {environment.skill.name} shows all",
            )


def local_policy(directory: Path) -> Policy:
    """The policy of a model directory, loaded when it is first asked something. Raises PolicyError."""
    return LazyPolicy(directory, user_cache())


def measure_speed(policy: Policy) -> float | None:
    """Positions a second of a local policy; None for an endpoint, whose speed is not ours to know."""
    if not isinstance(policy, LazyPolicy):
        return None
    from rft_ilab.policy.local.model import positions_per_second

    return round(positions_per_second(policy.loaded), 1)


def run_model(run: Run) -> Path:
    """The tuned model of a run. Raises RunError if training has not finished."""
    if not run.path("model", "config.json").exists():
        if run.manifest.get("kind") == "gate":
            raise RunError(
                "this run only judged a model and has none of its own",
                where=run.directory,
                fix=f"name the model itself{_judged_directory(run)}",
            )
        raise RunError(
            "this run has no tuned model yet", where=run.directory, fix="finish it with: ilab rft run --run ..."
        )
    return run.path("model")


def _judged_directory(run: Run) -> str:
    """Where the model that a run judged lay, in words; empty if the run does not say."""
    stages = run.manifest.get("stages", {})
    question = (stages.get("regate") or stages.get("gate") or {}).get("question") or {}
    return f": {question['candidate']}" if isinstance(question.get("candidate"), str) else ""


def versions() -> dict[str, str]:
    """Of this package, of Python, and of the packages that decide what a model says, where they are installed."""
    found = {"rft_ilab": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
