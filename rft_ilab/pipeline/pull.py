"""A pull request from its commits to a verdict: inspect, measure, train, gate; one report.

The branch proposes, the base judges: see :mod:`rft_ilab.pipeline.trees`. The run is named after what trains, so that
the same command resumes it, and a branch that also edits its yardstick gets the very same run and verdict.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.config import FILE_NAME, Settings, load_settings
from rft_ilab.errors import GraderError, RftError, SignalError, SkillError
from rft_ilab.pipeline.gate import regress
from rft_ilab.pipeline.loud import loud_notes
from rft_ilab.pipeline.precheck import Inspection, already_known, inspect, measure, powers
from rft_ilab.pipeline.request import Request, Workspace
from rft_ilab.pipeline.screen import Screen
from rft_ilab.pipeline.stages import train
from rft_ilab.pipeline.trees import Head, Trees, head_tree, trees
from rft_ilab.report import html, load
from rft_ilab.report.pull import Note, Prompted, PullReport, Sample
from rft_ilab.skills.proposal import Proposal, read_proposal
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.types import Outcome, digest

MOST_TOKENS = 2048  # of an answer of a skill that nobody has looked at yet


@dataclass(frozen=True, slots=True, kw_only=True)
class PullWish:
    """``runs`` is where run directories are; ``run`` names another one. ``train`` and ``gate`` override the base's
    settings; ``baseline`` is one that is stored on the base. ``command`` goes into the report."""

    taxonomy: Path
    base: str
    head: str = "HEAD"
    precheck: bool = False
    runs: Path
    run: Path | None = None
    model: Path | None = None
    baseline: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    def settings(self, base: Settings) -> Settings:
        given = {"data": self.data, "train": self.train}
        changed = {
            name: dataclasses.replace(getattr(base, name), **{k: v for k, v in table.items() if v is not None})
            for name, table in given.items()
        }
        return dataclasses.replace(base, **changed)


class _Found:
    """What is known so far; becomes the report."""

    def __init__(self, proposal: Proposal, command: str, precheck: bool) -> None:
        loud, others = loud_notes(proposal)
        self.facts: dict[str, Any] = {
            "precheck": precheck,
            "base": proposal.base.ref,
            "base_commit": proposal.base.commit,
            "head_commit": proposal.head.commit,
            "skills": dict(sorted(proposal.skills.items())),
            "plain": proposal.plain,
            "loud": loud,
            "others": others,
            "command": command,
        }
        self.reasons: list[str] = []
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - start

    def report(self, outcome: Outcome, headline: str) -> PullReport:
        reasons, seconds = tuple(self.reasons), dict(self.seconds)
        return PullReport(outcome=outcome, headline=headline, reasons=reasons, seconds=seconds, **self.facts)


def pull_request(wish: PullWish, *, command: Sequence[str], console: Console) -> PullReport:
    """Everything that can be said of a branch; ``command`` are the words that ask for the same again.

    Raises RftError where it is not the branch's fault: no such commit, no model, a base that holds no skills.
    """
    screen = Screen(console)
    proposal = read_proposal(wish.taxonomy, wish.base, wish.head)
    found = _Found(proposal, _pinned(proposal, command), wish.precheck)
    if proposal.uncommitted:
        found.reasons.append("changes that are not committed, if there are any, were not looked at")
    with head_tree(proposal) as head:
        with found.timed("lint and self-test"):
            inspection = _inspect(proposal, head, screen)
        found.facts |= {"findings": inspection.findings, "self_tests": inspection.self_tests}
        found.reasons += inspection.waived
        if inspection.errors:
            found.facts["ignored"] = tuple(_judging(proposal))
            return found.report("FAIL", _failed(inspection))
        try:
            with trees(proposal, head, wish.taxonomy) as three:
                found.facts["ignored"] = three.ignored
                return _learn(wish, proposal, three, inspection, found, screen)
        except (SkillError, GraderError) as error:
            place = _place(error, head, proposal)
            if place is None:
                raise
            note = Note(severity="error", file=place, line=error.line, message=error.what, fix=error.fix)
            found.facts["findings"] = (*inspection.findings, note)
            return found.report("FAIL", "the change cannot be trained on as it is")


def _pinned(proposal: Proposal, command: Sequence[str]) -> str:
    """The command with commits for names, which move."""
    names = {"--base": proposal.base.commit, "--head": proposal.head.commit}
    before = ["", *command[:-1]]
    return shlex.join(names.get(option, word) for option, word in zip(before, command, strict=True))


def _inspect(proposal: Proposal, head: Head, screen: Screen) -> Inspection:
    try:
        settings = load_settings(head.taxonomy)
    except SkillError as error:
        fix = error.fix.replace(f"{head.root}/", "")
        note = Note(severity="error", file=head.place(str(error.where)), line=error.line, message=error.what, fix=fix)
        return Inspection((note,), (), ())
    return inspect(proposal, head, settings, screen)


def _failed(inspection: Inspection) -> str:
    fooled = [test.skill for test in inspection.self_tests if test.fooled]
    if fooled:
        return f"the grader of {', '.join(fooled)} can be cheated"
    count = inspection.errors
    return f"{count} error{'s' if count != 1 else ''} to repair"


def _judging(proposal: Proposal) -> list[Note]:
    return [Note(severity="warning", file=file, message="judges; not used") for file in proposal.judging]


def _place(error: RftError, head: Head, proposal: Proposal) -> str | None:
    """Where in the branch the error is; None if it is not there."""
    if error.where is None:
        return None
    where = str(error.where)
    if (place := head.place(where)) != where:
        return place
    inside = "/taxonomy/"
    if "/rft-train-" in where and inside in where:
        return str(proposal.head.inside / where.split(inside, 1)[1])
    return None


def _learn(
    wish: PullWish, proposal: Proposal, three: Trees, inspection: Inspection, found: _Found, screen: Screen
) -> PullReport:
    remote = [name for name in three.targets if name in inspection.remote]
    if remote:
        found.reasons.append(f"not run, because its grader asks a model or a server: {', '.join(remote)}")
        return found.report("INCONCLUSIVE", "a person has to look at the grader")
    if not three.targets:
        return found.report("PASS", _nothing(proposal, three))
    settings = wish.settings(three.judges.settings())
    if greedy := _greedy(settings, three.judges.new):
        what = f"max_tokens of {greedy} is {settings.skill(greedy).max_tokens:,}, more than {MOST_TOKENS:,}"
        note = Note(severity="error", file=str(proposal.head.inside / FILE_NAME), message=what, fix="ask for less")
        found.facts["findings"] = (*inspection.findings, note)
        return found.report("FAIL", "the change cannot be trained on as it is")
    request = Request(taxonomy=three.training, run=Path(), settings=settings, model=wish.model, targets=three.targets)
    request = dataclasses.replace(request, run=wish.run or wish.runs / f"pr-{_name(wish, request)[:12]}")
    space = Workspace(request)
    with found.timed("signal"):
        signals: list[Prompted] = []
        samples: list[Sample] = []
        unfit: list[str] = []
        for environment in space.targets:
            screen.say(f"  {environment.skill.name}: what the base model knows")
            mine = measure(space, environment, space.student(), _known(three, environment.skill.name))
            signals, samples, unfit = signals + mine[0], samples + mine[1], unfit + mine[2]
    found.facts |= {"signals": tuple(signals), "samples": tuple(samples)}
    with found.timed("power"):
        found.facts["power"] = tuple(powers(three.judges.taxonomy, settings, three.targets))
    found.reasons += already_known(signals)
    for name in (name for name in three.targets if name in three.judges.new):
        found.reasons.append(
            f"{name} is new: its own test tasks and grader judge it, after the self-test above; all else is the base's"
        )
    if unfit:
        found.reasons += unfit
        return found.report("INCONCLUSIVE", "there is nothing for reinforcement learning to reward yet")
    if wish.precheck:
        return found.report("PASS", "ready to be trained and judged")
    return _judge(wish, request, three, found, screen)


def _nothing(proposal: Proposal, three: Trees) -> str:
    if three.ignored:
        return "nothing that trains was changed; edits of what judges are for a person to decide"
    return "nothing that trains was changed" if proposal.skills else "no skill was changed"


def _known(three: Trees, name: str) -> set[str]:
    """Ids of the tasks that the base has of a skill."""
    if name in three.judges.new:
        return set()
    return {task.id for task in load_tasks(load_skill(three.judges.taxonomy, name, Settings()))}


def _greedy(settings: Settings, new: Sequence[str]) -> str:
    """The first new skill whose own table asks for more than any skill needs; empty if none does."""
    return next((name for name in new if settings.skill(name).max_tokens > MOST_TOKENS), "")


def _judge(wish: PullWish, request: Request, three: Trees, found: _Found, screen: Screen) -> PullReport:
    try:
        with found.timed("training"):
            train(request, console=screen.console)
    except (SignalError, GraderError) as error:
        found.reasons.append(str(error))
        why = "there is nothing for reinforcement learning to reward yet"
        return found.report("INCONCLUSIVE", why if isinstance(error, SignalError) else "too much could not be graded")
    judged = dataclasses.replace(
        request, taxonomy=three.judges.taxonomy, base=three.judges, baseline=wish.baseline, histories=()
    )
    with found.timed("gate"):
        regress(judged, console=screen.console)
    report = load.load_run(request.run)
    html.write_html(report, request.run / "report.html")
    found.facts["run"] = report
    assert report.gate
    words = {"PASS": "better where it should be, and no worse elsewhere", "FAIL": "the trained model must not be used"}
    return found.report(report.gate.outcome, words.get(report.gate.outcome, "the evidence does not decide"))


def _name(wish: PullWish, request: Request) -> str:
    """Of the run: a digest of all that trains, in whatever temporary directory it lies."""
    root = request.taxonomy.parent
    files = sorted(path for path in root.rglob("*") if path.is_file())
    texts = [[path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]
    return digest([texts, dataclasses.asdict(request.settings), str(wish.model), list(request.targets), wish.baseline])
