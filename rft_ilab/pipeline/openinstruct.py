"""The RL stage on Open-Instruct: data and plan, grader server, preflight, ``grpo_fast.py``, its finished model.

All of it lies in ``open-instruct/`` of the run::

    data/           the Parquet directory, with the digest of its rows in its name
    code/           what runs in Open-Instruct's Python
    known.jsonl     right answers, for the preflight call
    plan.txt        what was said before it started
    train.log       all that grpo_fast.py said, over all attempts; graders.log is the grader server's
    output/ state/  its models; its resumable states
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.errors import RunError
from rft_ilab.pipeline.data import training_targets
from rft_ilab.pipeline.engine import OPEN_INSTRUCT, refuse_other_engine
from rft_ilab.pipeline.request import Request, Workspace
from rft_ilab.pipeline.screen import Screen
from rft_ilab.pipeline.tracking import check_trackers, tracking
from rft_ilab.policy.local.lengths import chat_counter
from rft_ilab.scaleout.openinstruct import checkpoint, dataset
from rft_ilab.scaleout.openinstruct.cluster import judge_cluster
from rft_ilab.scaleout.openinstruct.flags import EXPERIMENT, flags_of
from rft_ilab.scaleout.openinstruct.follow import Log
from rft_ilab.scaleout.openinstruct.graders import TOKEN, Graders, healthy, served
from rft_ilab.scaleout.openinstruct.launch import SHOWN_LINES, Place, failure, lines_of, shown_environment
from rft_ilab.scaleout.openinstruct.model_shape import read_shape
from rft_ilab.scaleout.openinstruct.plan import Plan, make_plan
from rft_ilab.scaleout.openinstruct.plan_text import plan_lines
from rft_ilab.scaleout.openinstruct.site import KNOWN_COMMIT, Found, Site, find, local_cpus, local_gpus
from rft_ilab.store import Run, append_jsonl, write_atomic
from rft_ilab.synth.exports import ExportTask

FOLDER = "open-instruct"
ASK_S, PREFLIGHT_S = 180.0, 600.0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known before anything starts."""

    plan: Plan
    tasks: list[ExportTask]
    data: Path
    flags: list[str]


def dry_run(request: Request) -> Iterator[str]:
    """Everything that a start would say and do; only the data directory is written. Needs no checkout and no Ray."""
    site = _site(request)
    space = Workspace(request)
    run = Run(request.run)
    if (request.run / "manifest.json").exists():
        run = Run.open(request.run)
    prepared = _prepare(space, run, site, site.gpus or local_gpus())
    place = Place(found=_found_or_named(site), site=site, code=run.path(FOLDER, "code").absolute())
    token = bool(site.grader_url or site.ray_address)
    graders = {"RFT_GRADER_URL": site.grader_url or f"http://{'HOST' if token else '127.0.0.1'}:PORT"}
    environment = place.environment(
        graders | ({TOKEN: ""} if token else {}), prepared.plan.layout, space.settings.train.max_error_share
    )
    yield f"data: {prepared.data} ({_counted(prepared.tasks)})"
    yield from plan_lines(prepared.plan)
    yield f"environment: {shown_environment(environment)}"
    yield "command: " + shlex.join(place.command("launcher.py", prepared.flags))
    if site.ray_job:
        yield "as a job: " + shlex.join(place.submission("launcher.sh", _job(request.run, 1)))
    yield f"nothing was launched; the model would come to {run.path('model')}"


def train_open_instruct(request: Request, *, console: Console) -> Path:
    """Train the targets; returns the tuned model's directory. The same request resumes, or finds that all is done.

    Raises RunError if anything that is needed is missing, if the graders cannot be reached from where the rewards run,
    or if the training fails; nothing is launched before all that can be checked was.
    """
    site, screen = _site(request), Screen(console)
    found = find(site)
    space = Workspace(request)
    run = space.start_run()
    if run.done("rl"):
        screen.say("training: this run is trained already")
        return run.path("model")
    asked = _asked(space, site)
    refuse_other_engine(run, asked)
    check_trackers(space.settings.tracking.report_to)
    place = Place(found=found, site=site, code=run.path(FOLDER, "code").absolute())
    place.ship()
    gpus = site.gpus or local_gpus()
    cluster = None
    if site.ray_address:
        cluster = judge_cluster(place.ask("cluster_probe.py", [], place.cluster_environment(), ASK_S))
        screen.say(cluster.line)
        gpus = site.gpus or cluster.gpus_a_node
    prepared = _prepare(space, run, site, gpus)
    for line in (said := [f"data: {prepared.data} ({_counted(prepared.tasks)})", *plan_lines(prepared.plan)]):
        screen.say(line)
    if not found.known:
        screen.say(f"note: Open-Instruct at {found.commit}; this was made for {KNOWN_COMMIT[:12]}")
    if cluster:
        cluster.check(prepared.plan.layout, site.ray_address)
    elif prepared.plan.nodes > 1:
        raise RunError("several nodes take a Ray cluster", fix="start one, and give its head with --ray-address")
    elif prepared.plan.layout.cpus > local_cpus():
        # Ray would wait for them, and then give up.
        raise RunError(
            f"Ray must count {prepared.plan.layout.cpus} CPUs for this plan, this machine has {local_cpus()}",
            fix=f"ray start --head --num-cpus {prepared.plan.layout.cpus}, and --ray-address 127.0.0.1:6379",
        )
    write_atomic(run.path(FOLDER, "plan.txt"), "\n".join(said) + "\n")
    run.manifest["engine"] = {
        "name": OPEN_INSTRUCT,
        "asked": asked,
        "commit": found.commit,
        "checkout": str(found.checkout),
        "flags": shlex.join(prepared.flags),
    }
    run.save()
    with run.stage("rl") as facts:
        facts |= _Training(space, run, place, prepared, screen).until_finished()
    return run.path("model")


class _Training:
    """Attempts at one run, of which the last finishes it."""

    def __init__(self, space: Workspace, run: Run, place: Place, prepared: Prepared, screen: Screen) -> None:
        self.space, self.run, self.place, self.prepared, self.screen = space, run, place, prepared, screen
        self.seed = space.settings.train.seed

    def until_finished(self) -> dict[str, Any]:
        """Train unless a finished model is there; adopt it. Returns facts for the manifest."""
        output = self.run.path(FOLDER, "output")
        finished = checkpoint.find_finished(output, EXPERIMENT, self.seed)
        if finished is None:
            with self._graders() as graders:
                self._preflight(graders)
                self._train(graders)
            finished = checkpoint.find_finished(output, EXPERIMENT, self.seed)
        if finished is None:
            raise RunError(
                "grpo_fast.py ended well and left no finished model",
                where=output,
                fix="is it on storage that all share?",
            )
        checkpoint.adopt(finished, self.space.model_directory, self.run.path("model"))
        self.screen.say(f"model: {finished.name} of Open-Instruct is {self.run.path('model')}")
        return {"engine": OPEN_INSTRUCT, "finished": finished.name, "steps": self.prepared.plan.settings.steps}

    @contextlib.contextmanager
    def _graders(self) -> Iterator[Graders]:
        """Those that run already, or a server of our own."""
        site = self.place.site
        if site.grader_url:
            graders = Graders(url=site.grader_url.rstrip("/"), token=os.environ.get(TOKEN, ""))
            if not healthy(graders.url, graders.token):
                raise RunError("no grader server answers there", where=site.grader_url, fix="see --grader-url")
            yield graders
            return
        log = self.run.path(FOLDER, "graders.log")
        taxonomy = self.space.request.taxonomy
        with served(taxonomy, log, reached_from=site.ray_address, host=site.grader_host) as graders:
            self.screen.say(f"graders: {graders.url}, {'with a token' if graders.token else 'this machine only'}")
            yield graders

    def _environment(self, graders: Graders) -> dict[str, str]:
        share = self.space.settings.train.max_error_share
        return self.place.environment(graders.environment, self.prepared.plan.layout, share)

    def _preflight(self, graders: Graders) -> None:
        """Known answers, graded from where the rewards will run."""
        known = self.run.path(FOLDER, "known.jsonl").absolute()
        dataset.write_known_answers(known, self.prepared.tasks)
        environment = {"RFT_GRADER_DEADLINE_S": "30"} | self._environment(graders)
        answer = self.place.ask("preflight.py", [str(known)], environment, PREFLIGHT_S)
        nodes = answer.get("nodes", 1)
        where = f"{nodes} node{'' if nodes == 1 else 's'} of the cluster" if self.place.site.ray_address else "here"
        self.screen.say(f"preflight: {answer.get('graded', 0)} known answers graded as expected, asked from {where}")

    def _train(self, graders: Graders) -> None:
        plan, screen, path = self.prepared.plan, self.screen, self.run.path(FOLDER, "train.log")
        attempt = self.run.manifest.setdefault("attempts", 0) + 1
        self.run.manifest["attempts"] = attempt
        self.run.save()
        log, job = Log(plan.settings.steps, plan.settings.prompts), _job(self.run.directory, attempt)
        shown = {
            "open_instruct": dataclasses.asdict(plan.settings),
            "targets": [e.skill.name for e in self.space.targets],
            **{key: self.run.manifest[key] for key in ("versions", "skills")},
        }
        start = path.stat().st_size if path.exists() else 0
        screen.say(f"training: attempt {attempt}, log in {path}")
        with path.open("ab") as file:
            process = self.place.start("launcher.py", self.prepared.flags, self._environment(graders), file, job)
        try:
            with (
                tracking(self.space.settings.tracking.report_to, self.run.directory, shown, screen.say) as track,
                screen.training(plan.settings.steps + 1) as show,
            ):
                for line in lines_of(process, path, start, graders.check):
                    for said in log.add(line):
                        if isinstance(said, str):
                            screen.say(f"  {said}")
                            continue
                        append_jsonl(self.run.path("rl", "steps.jsonl"), [said | {"attempt": attempt}])
                        show(said)
                        track(said)
        finally:
            # After Ctrl-C and when the graders are gone, too; the state that was saved last stays.
            self.place.stop(process, job)
            self.run.manifest["tolerated_errors"] = self.run.manifest.get("tolerated_errors", 0) + log.errors
            self.run.save()
        if process.returncode:
            for line in [] if log.reason else log.last[-SHOWN_LINES:]:
                screen.say(f"  | {line}")
            raise failure(process.returncode, log, path)


def _asked(space: Workspace, site: Site) -> dict[str, Any]:
    """What must not change between start and resume. DeepSpeed's states are for as many GPUs as wrote them."""
    free = ("gpu", "gpu_hour_price", "checkpoint_every")
    settings = dataclasses.asdict(space.settings.open_instruct)
    return {k: v for k, v in settings.items() if k not in free} | {"gpus": site.gpus, "nodes": site.nodes}


def _site(request: Request) -> Site:
    assert request.site is not None
    return request.site


def _found_or_named(site: Site) -> Found:
    """For a dry run: placeholders where the real thing is not there."""
    checkout = site.checkout.absolute() if site.checkout else Path("OPEN_INSTRUCT")
    python = site.python.absolute() if site.python else Path("OPEN_INSTRUCT_PYTHON")
    return Found(checkout=checkout, python=python, commit="unknown")


def _prepare(space: Workspace, run: Run, site: Site, gpus: int) -> Prepared:
    if not gpus:
        raise RunError("how many GPUs has a node?", fix="say so with --gpus")
    tasks = _tasks(space, run)
    response = max(e.settings.max_tokens for e in space.targets)
    measured = dataset.measure(tasks, chat_counter(space.model_directory), response)
    plan = make_plan(
        read_shape(space.model_directory), measured, space.settings.open_instruct, nodes=site.nodes, gpus=gpus
    )
    work = run.path(FOLDER).absolute()
    data = dataset.write_dataset(work / "data", tasks)
    flags = flags_of(plan, model=space.model_directory.absolute(), data=data, work=work, seed=space.settings.train.seed)
    return Prepared(plan=plan, tasks=tasks, data=data, flags=flags)


def _tasks(space: Workspace, run: Run) -> list[ExportTask]:
    """Of a run with verified data, the training tasks that have signal; else all of them."""
    tasks = dataset.tasks_of(training_targets(space, run))
    kept: set[str] = set()
    for path in run.directory.glob("data/rlvr/open-instruct-*/train.parquet"):
        import pyarrow.parquet as pq

        kept |= set(pq.read_table(path, columns=["task_id"])["task_id"].to_pylist())
    return [one for one in tasks if not kept or one.split == "val" or one.task.id in kept]


def _counted(tasks: list[ExportTask]) -> str:
    train = sum(one.split == "train" for one in tasks)
    return f"{train} training and {len(tasks) - train} validation tasks"


def _job(run: Path, attempt: int) -> str:
    return f"rft-{run.name}-{attempt}-{int(time.time())}"
