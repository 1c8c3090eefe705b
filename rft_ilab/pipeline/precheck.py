"""What can be said of a changed skill before anything is trained: lint, self-test, signal, power, sample rows.

Graders and generators of the branch run in the cage. One that would ask a model or a server is not run at all: its
address, and the headers that it asks for, are the branch's choice.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePosixPath

from rft_ilab.config import Settings
from rft_ilab.errors import RftError, SignalError, SkillError
from rft_ilab.grading.cage.pool import workers
from rft_ilab.grading.proof.golden import NO_ANSWER, Finding
from rft_ilab.grading.proof.lint import lint_taxonomy
from rft_ilab.grading.proof.prove import FULL, REMOTE, Proof, has_part, prove_skill
from rft_ilab.grading.proof.waivers import MUTANT, SUFFIX
from rft_ilab.pipeline.plan import Wish, plan
from rft_ilab.pipeline.request import Workspace
from rft_ilab.pipeline.screen import Screen
from rft_ilab.pipeline.trees import Head
from rft_ilab.report.pull import Note, Power, Prompted, Sample, SelfTest
from rft_ilab.rl.signal import Signal, measure_signal, refuse_without_signal
from rft_ilab.rollouts import Environment, Graded, collect
from rft_ilab.skills.changes import Changes, concerned
from rft_ilab.skills.proposal import Proposal
from rft_ilab.skills.tree import ROOT, graders_directory, leaf_names, read_grader, shared_names
from rft_ilab.types import Policy, Sampling

TASKS, SAMPLES = 32, 4  # of the signal, for each prompt
SHOWN = 3  # sample rows a skill
FAILS = ("the grader fails on the reference", NO_ANSWER)
BARE = "bare"
KNOWN = 0.9  # a base model that is right so often has little to learn
POWER = Wish(power=0.8, discordance=0.1, icc=0.5)


@dataclasses.dataclass(frozen=True, slots=True)
class Inspection:
    """Of the skills that were looked at. ``remote``: those whose grader was not run; ``waived``: what of the self-test
    the branch itself says does not apply."""

    findings: tuple[Note, ...]
    self_tests: tuple[SelfTest, ...]
    remote: tuple[str, ...]
    waived: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        return sum(note.severity == "error" for note in self.findings)


def inspected(proposal: Proposal, head: Head) -> Changes:
    """What to look at: what `ilab taxonomy lint --changed` would, and changed skills of which files were refused."""
    try:
        there = leaf_names(head.taxonomy)
    except SkillError:
        there = ()
    paths = [PurePosixPath(path) for paths in (*proposal.files.values(), proposal.judging) for path in paths]
    changes = concerned(paths, proposal.head, proposal.parted, head.taxonomy, there)
    names = {name for name, kind in proposal.skills.items() if kind != "deleted"}
    return dataclasses.replace(changes, skills=tuple(sorted(names.union(changes.skills))))


def _own_grader(proposal: Proposal, head: Head, name: str, shared: Set[str]) -> bool:
    """Whether the grader of a skill, or what is said of it, is the branch's."""
    leaf = proposal.root / name
    mine = {str(leaf / "grader.json"), str(leaf / f"grader{SUFFIX}")} & set(proposal.files.get(name, ()))
    used = shared_names(head.taxonomy / ROOT / name / "grader.json")
    return proposal.skills.get(name) == "new" or bool(mine) or bool(used & shared)


def inspect(proposal: Proposal, head: Head, settings: Settings, screen: Screen) -> Inspection:
    """Lint and self-test of the branch's own files."""
    findings = [Note(severity="error", file=p.file, message=p.what, fix=p.fix) for p in head.problems]
    bad = {name for problem in head.problems if (name := proposal.skill_of(problem.file))}
    tests: list[SelfTest] = []
    remote: list[str] = []
    names: list[str] = []
    waived: list[str] = []
    untried: set[str] = set()
    changes = inspected(proposal, head)
    for name in changes.skills:
        if name in bad:
            continue
        asks = _asks_others(head.taxonomy, name)
        (remote if asks and _own_grader(proposal, head, name, changes.graders) else names).append(name)
        untried |= {name} if asks else set()
    findings += [_remote(proposal, name) for name in remote]
    # A shared grader that nothing uses is not run: it may ask a server. Where a skill is gone, its table may be left.
    wanted = names or "deleted" in proposal.skills.values()
    lint = lint_taxonomy(head.taxonomy, settings, names, style=True, workers=workers()) if wanted else []
    notes = [_note(finding, head) for finding in lint]
    errors = [note for note in notes if note.severity == "error"]
    broken = {name for name in names if any(_of(note, proposal, name) for note in errors)}
    # One that fails on references, or never returns, may need seconds for each text, and fails on all others as well.
    hopeless = {n for n in names if any(_of(note, proposal, n) and note.message.startswith(FAILS) for note in errors)}
    for name in names:
        if name in hopeless | untried:
            continue
        screen.say(f"  {name}: lint and self-test")
        try:
            proof = prove_skill(head.taxonomy, name, settings, FULL)
        except RftError as error:
            if name not in broken:  # lint says what is wrong, and where
                notes.append(_note(Finding.of(error, head.taxonomy / ROOT / name), head))
            continue
        tests.append(_self_test(proof))
        if (given := _waivers(proof)) and _own_grader(proposal, head, name, changes.graders):
            waived.append(f"{name}: the branch itself says what of the self-test does not apply: {given}")
        notes += [_note(finding, head) for finding in proof.findings]
    # What lint tries the self-test tries again, and says in the same words.
    unique = {(n.file, n.line, n.message): n for n in reversed(findings + notes)}
    return Inspection(tuple(reversed(unique.values())), tuple(tests), tuple(remote), tuple(waived))


def _waivers(proof: Proof) -> str:
    found = {result.name: result.note for result in proof.results if result.outcome == "waived"}
    found |= {f"{MUTANT}{name}": reason for name, reason in proof.waived_mutants.items()}
    return "; ".join(
        f"{name}: {reason if len(reason) <= 100 else f'{reason[:100]} ...'}" for name, reason in found.items()
    )


def _asks_others(taxonomy: Path, name: str) -> bool:
    try:
        return has_part(read_grader(taxonomy / ROOT / name / "grader.json", graders_directory(taxonomy)), REMOTE)
    except RftError:  # lint will say so
        return False


def _remote(proposal: Proposal, name: str) -> Note:
    return Note(
        severity="warning",
        file=str(proposal.root / name / "grader.json"),
        message="the grader asks a model or a server; those of a branch are not run",
        fix=f"read it, then check it by hand: ilab taxonomy lint --skill {name}; ilab rft grader-test {name}",
    )


def _note(finding: Finding, head: Head) -> Note:
    return Note(
        severity=finding.severity,
        file=head.place(finding.file),
        line=finding.line,
        message=finding.message.replace(f"{head.root}/", ""),
        fix=finding.fix.replace(f"{head.root}/", ""),
    )


def _of(note: Note, proposal: Proposal, name: str) -> bool:
    return note.file.startswith(f"{proposal.root / name}/")


def _self_test(proof: Proof) -> SelfTest:
    counts = Counter(result.outcome for result in proof.results)
    return SelfTest(
        skill=proof.name,
        grader=proof.kind,
        references=proof.references,
        refused=proof.refused,
        probes=len(proof.results) - counts["waived"] - counts["n/a"],
        fooled=counts["error"],
        mutants=proof.mutation.score,
        median_ms=proof.latency_ms["median"] if proof.latency_ms else None,
        errors=proof.errors,
    )


def measure(
    space: Workspace, environment: Environment, policy: Policy, known: Set[str]
) -> tuple[list[Prompted], list[Sample], list[str]]:
    """What the base model does on training tasks, bare and with demonstrations; and reasons not to train, if any.

    Tasks whose id is not ``known`` come first: those are what the branch brings.
    """
    tasks = sorted(environment.split("train"), key=lambda task: (task.id in known, task.id))[:TASKS]
    train, most = space.settings.train, environment.settings
    found, samples = list[Prompted](), list[Sample]()
    for demonstrations in sorted({0, most.demonstrations}):
        groups = collect(
            policy,
            environment.grader,
            environment.skill,
            tasks,
            SAMPLES,
            Sampling(max_tokens=most.max_tokens, seed=train.seed),
            demonstrations=demonstrations,
            cache=space.cache,
        )
        passes = [(group[0].task.id, [graded.grade.passed for graded in group]) for group in groups]
        signal = measure_signal(
            environment.skill.name,
            passes,
            classes=environment.classes,
            samples=SAMPLES,
            group_size=train.group_size,
            after="base",
        )
        found.append(Prompted(prompt=f"{demonstrations} demonstrations" if demonstrations else BARE, signal=signal))
        samples += [_sample(group[0]) for group in groups[:SHOWN]] if demonstrations == 0 else []
    return found, samples, _no_signal(signal, train.signal_floor)


def already_known(found: Sequence[Prompted]) -> list[str]:
    """Skills of which the bare prompt is enough."""
    return [
        f"{of.skill}: the base model is right {100 * of.pass_at_1:.0f}% of the time already; there is little to learn"
        for row in found
        if row.prompt == BARE and (of := row.signal).pass_at_1 >= KNOWN
    ]


def _no_signal(signal: Signal, floor: float) -> list[str]:
    """As the data stage will say it, which shows demonstrations."""
    try:
        refuse_without_signal(signal, floor)
    except SignalError as error:
        return [str(error)]
    return []


def _sample(graded: Graded) -> Sample:
    return Sample(
        skill=graded.task.skill,
        prompt=graded.task.messages[-1].content,
        reference=graded.task.reference,
        answer=graded.rollout.completion,
        passed=graded.grade.passed,
        reason=graded.grade.error or graded.grade.reason,
    )


def powers(taxonomy: Path, settings: Settings, targets: Sequence[str]) -> list[Power]:
    """What the gate can show, with ``targets`` as what is to be learnt and every other skill watched."""
    tiers: Mapping[str, str] = {
        name: "target" if name in targets else "critical" if own.tier == "target" else own.tier
        for name in {*settings.skills, *targets}
        for own in [settings.skill(name)]
    }
    skills = {name: dataclasses.replace(settings.skill(name), tier=tier) for name, tier in tiers.items()}  # type: ignore[arg-type]
    return [
        Power(
            skill=row.skill,
            tier=row.tier,
            tasks=row.tasks,
            groups=row.groups,
            asked=row.asked,
            chance=row.chance,
            needed=row.needed,
        )
        for row in plan(taxonomy, dataclasses.replace(settings, skills=skills), POWER)
    ]
