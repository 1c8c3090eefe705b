"""Which proposed tasks become tasks. Cheap checks first; what survives them is asked about, and the answers decide.

1. It must make a task, and must not be cut off (``malformed``, ``truncated``).
2. Its question must not be that of a val or test task of any skill, nor nearly, and its group must not be one of
   theirs (``contaminated``).
3. Nor nearly that of a training task or of a proposal that came before it (``duplicate``).
4. If it brings its own answer, the grader must accept that, even one right by construction (``wrong``, ``error``).
5. To a teacher's task ``samples`` independent answers are drawn. Of a paraphrase the original's reference must pass
   with ``needed`` of them; a question without reference takes the answer that most agree on, if ``needed`` do
   (self-consistency, arXiv 2203.11171; the skill's own grader says what agrees). Otherwise ``no_agreement``.

Agreement is weaker evidence than authorship: what all answers get wrong together passes. Such tasks are ``synthetic``
and never enter val or test; docs/data.md has how often agreement was right.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rft_ilab.errors import SkillError
from rft_ilab.rollouts import Environment, Graded, grade_groups, sample_groups
from rft_ilab.skills.tasks import build_prompt, task_from_row
from rft_ilab.store import Cache
from rft_ilab.synth.contamination import HeldOut
from rft_ilab.synth.duplicates import NearDuplicates
from rft_ilab.synth.ledger import Disposition, Entry, said, sampling_row, task_id
from rft_ilab.synth.sources import Proposal
from rft_ilab.types import Policy, Rollout, Sampling, Task

MOST_LUCK, MOST_SAMPLES = 0.05, 16
AGREEMENT_SEED = 1_000_003
UNKNOWN = "(unknown)"  # the reference of a question that has none yet; no grader sees it
EVIDENCE = {"generated": "by construction", "paraphrase": "reference kept", "question": "agreement"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A proposal with its fate. ``task`` is there from the moment it makes one; ``group``: the independent answers."""

    proposal: Proposal
    task: Task | None = None
    disposition: Disposition = "kept"
    reason: str = ""
    agreed: int | None = None
    samples: int | None = None
    group: tuple[Graded, ...] = ()
    duplicate_of: str | None = None
    overlap: float | None = None


@dataclass(slots=True)
class Known:
    """What a new question must not be like: held-out tasks of all skills, and questions of this one so far."""

    held_out: HeldOut
    questions: NearDuplicates = field(default_factory=NearDuplicates)
    groups: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, environments: Iterable[Environment], own: Environment) -> Known:
        return cls.with_held_out(held_out(environments), own)

    @classmethod
    def with_held_out(cls, found: HeldOut, own: Environment) -> Known:
        known = cls(found, groups={task.group for task in own.tasks if task.split != "train"})
        for task in own.split("train"):
            known.questions.add(task.id, question(task))
        return known


def held_out(environments: Iterable[Environment]) -> HeldOut:
    """The questions of all val and test splits."""
    return HeldOut((t.id, t.skill, question(t)) for e in environments for t in e.tasks if t.split != "train")


def question(task: Task) -> str:
    """What two tasks are compared by: all turns but the skill's instruction."""
    return "\n".join(turn.content for turn in task.messages if turn.role != "system")


def screen(
    environment: Environment,
    proposals: Sequence[Proposal],
    known: Known,
    policy: Policy | None,
    *,
    samples: int,
    needed: int,
    seed: int,
    cache: Cache,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Screened]:
    """One :class:`Screened` for each proposal, in order. ``policy`` answers what a teacher wrote."""
    found = [_cheaply(environment, proposal, known) for proposal in proposals]
    provisional: dict[int, str] = {}
    open_ = [i for i, one in enumerate(found) if one.disposition == "kept"]
    # Whatever brings its own answer: nothing else matters if the grader does not take that.
    own = [i for i in open_ if _has_reference(proposals[i])]
    for i, one in zip(own, _own_answers(environment, [found[i] for i in own]), strict=True):
        found[i] = one
    asked = [i for i in open_ if found[i].disposition == "kept" and proposals[i].source != "generated"]
    advance(len(proposals) - len(asked))
    if asked:
        if policy is None:
            raise ValueError("somebody must answer what a teacher asks")
        # Other draws than those that will be trained on and decide how hard the task is.
        sampling = Sampling(max_tokens=environment.settings.max_tokens, seed=seed + AGREEMENT_SEED)
        prompts = [
            build_prompt(environment.skill, task, environment.settings.demonstrations)
            for i in asked
            if (task := found[i].task)
        ]
        groups = sample_groups(policy, prompts, samples, sampling, cache, advance)
        for i, group in zip(asked, groups, strict=True):
            provisional[i] = found[i].task.id if found[i].task else ""  # type: ignore[union-attr]
            found[i] = _by_agreement(environment, found[i], group, needed, cache)
    # A question that got its answer is another task than the one that was asked about.
    final = {old: task.id for i, old in provisional.items() if (task := found[i].task)}
    return [replace(one, duplicate_of=final.get(one.duplicate_of or "", one.duplicate_of)) for one in found]


def entry(environment: Environment, one: Screened) -> Entry:
    """The line of the ledger of a screened task."""
    proposal, task = one.proposal, one.task
    story = (
        proposal.source,
        proposal.policy_id,
        proposal.seed.id if proposal.seed else "",
        proposal.index,
        proposal.text,
    )
    # A task that is new is known by its content; one that is like another, or none, by how it came about.
    new = one.disposition not in ("malformed", "truncated", "contaminated", "duplicate")
    return Entry(
        kind="task", id=task_id(task if new else None, *story), skill=environment.skill.name, source=proposal.source,
        disposition=one.disposition, reason=one.reason, task_id=task.id if task else None,
        seed_id=proposal.seed.id if proposal.seed else None, evidence=EVIDENCE[proposal.source], index=proposal.index,
        prompt=question(task) if task else proposal.text,
        reference=task.reference if task and task.reference != UNKNOWN else None, completion=proposal.text,
        policy_id=proposal.policy_id, sampling=sampling_row(proposal.sampling) if proposal.sampling else None,
        grader_digest=environment.skill.grader_digest, agreed=one.agreed, samples=one.samples,
        duplicate_of=one.duplicate_of, overlap=one.overlap,
    )  # fmt: skip


def _cheaply(environment: Environment, proposal: Proposal, known: Known) -> Screened:
    one = Screened(proposal=proposal)
    if proposal.truncated:
        return replace(one, disposition="truncated", reason="cut off at max_tokens")
    if proposal.row is None:
        return replace(one, disposition="malformed", reason=proposal.problem)
    row = proposal.row if _has_reference(proposal) else proposal.row | {"reference": UNKNOWN}
    try:
        task = task_from_row(environment.skill, row)
    except SkillError as error:
        return replace(one, disposition="malformed", reason=error.what)
    one = replace(one, task=task)
    text = question(task)
    if task.group in known.groups:
        reason = f"the group {task.group[:40]!r} is in the val or test split"
        return replace(one, disposition="contaminated", reason=reason)
    own = environment.skill.name if proposal.source == "generated" else None
    if (near := known.held_out.find(text, own=own)) is not None:
        return replace(
            one, disposition="contaminated", duplicate_of=near.key, overlap=near.overlap, reason=near.reason
        )  # fmt: skip
    if (same := known.questions.find(text)) is not None:
        return replace(one, disposition="duplicate", duplicate_of=same, reason="nearly the question of another task")
    known.questions.add(task.id, text)
    return one


def _has_reference(proposal: Proposal) -> bool:
    """Whether it brings its answer; a teacher's new question does not."""
    return proposal.source != "question" or "reference" in (proposal.row or {})


def _own_answers(environment: Environment, found: Sequence[Screened]) -> list[Screened]:
    pairs = [
        (
            one.task,
            Rollout(task_id=one.task.id, index=0, policy_id="reference", completion=one.task.reference, stop="eos"),
        )
        for one in found
        if one.task
    ]
    decided = []
    for one, grade in zip(found, environment.grader.grade(pairs), strict=True):
        fate: Disposition = "error" if grade.error is not None else "kept" if grade.passed else "wrong"
        reason = "right by construction, and the grader agrees" if fate == "kept" else f"its own answer: {said(grade)}"
        decided.append(replace(one, disposition=fate, reason=reason))
    return decided


def _by_agreement(
    environment: Environment, one: Screened, group: Sequence[Rollout], needed: int, cache: Cache
) -> Screened:
    assert one.task is not None and one.proposal.row is not None
    if "reference" in one.proposal.row:
        return _agreed(one, one.task, _graded(environment, one.task, group, cache), needed)
    # Every distinct answer stands for the reference once; the commonest first, so that it wins a tie.
    whole = Counter(rollout.completion.strip() for rollout in group if rollout.stop == "eos")
    best = replace(one, disposition="no_agreement", agreed=0, samples=len(group), reason="no answer could be read")
    for text, _ in whole.most_common():
        if not text:
            continue
        task = task_from_row(environment.skill, one.proposal.row | {"reference": text})
        graded = _graded(environment, task, group, cache)
        itself = next(g.grade for g in graded if g.rollout.completion.strip() == text)
        if not itself.passed:  # no label of the skill, say, or no date: an answer, but nothing to hold others against
            if not best.agreed and best.disposition != "error":
                best = replace(best, reason=f"no answer serves as a reference: {said(itself)}")
            continue
        trial = _agreed(one, task, graded, needed)
        if trial.disposition == "error":
            best = trial if best.disposition != "kept" and not best.agreed else best
        elif (trial.agreed or 0) > (best.agreed or 0):
            best = trial
    return _plainly(environment, best, cache) if best.disposition == "kept" else best


def _plainly(environment: Environment, one: Screened, cache: Cache) -> Screened:
    """The reference as the grader reads it (``REFILL``, not ``It is a refill.``), where that loses no agreement."""
    assert one.task is not None and one.proposal.row is not None and one.agreed is not None
    read = {g.grade.answer for g in one.group if g.grade.passed}
    text = read.pop() if len(read) == 1 else None
    if not text or text == one.task.reference:
        return one
    task = task_from_row(environment.skill, one.proposal.row | {"reference": text})
    again = _agreed(one, task, _graded(environment, task, [g.rollout for g in one.group], cache), one.agreed)
    (itself,) = _own_answers(environment, [again])
    return again if again.disposition == itself.disposition == "kept" else one


def _graded(environment: Environment, task: Task, group: Sequence[Rollout], cache: Cache) -> list[Graded]:
    own = [replace(rollout, task_id=task.id) for rollout in group]
    return grade_groups(environment.grader, [task], [own], cache)[0]


def _agreed(one: Screened, task: Task, graded: list[Graded], needed: int) -> Screened:
    # What was cut off might have gone on to say something else.
    agreed, n = sum(bool(g.grade.passed) and g.rollout.stop == "eos" for g in graded), len(graded)
    one = replace(one, task=task, agreed=agreed, samples=n, group=tuple(graded))
    if errors := [g.grade.error for g in graded if g.grade.error is not None]:
        return replace(one, disposition="error", reason=errors[0])
    if agreed < needed:
        return replace(one, disposition="no_agreement", reason=f"only {agreed} of {n} independent answers agree")
    return replace(one, reason=f"{agreed} of {n} independent answers agree")


def luck(classes: Iterable[str], samples: int, needed: int) -> float:
    """Chance that ``needed`` of ``samples`` answers agree although none has read the question.

    They are drawn like the references in ``classes``, one a task.

    >>> luck(["yes", "no"], 4, 3)
    0.625
    """
    counts = Counter(classes)
    rates = [count / counts.total() for count in counts.values()]
    ways = range(needed, samples + 1)
    both = sum(math.comb(samples, k) * p**k * (1 - p) ** (samples - k) for p in rates for k in ways)
    return min(1.0, both)


def enough(classes: Sequence[str], samples: int, needed: int) -> tuple[int, int]:
    """The least (samples, needed), at least as strict as those given, at which luck is at most ``MOST_LUCK``.

    >>> enough(["yes", "no"], 4, 3)
    (6, 6)
    """
    for n in range(samples, MOST_SAMPLES):
        for k in range(max(needed, math.ceil(n * needed / samples)), n + 1):
            if luck(classes, n, k) <= MOST_LUCK:
                return n, k
    return MOST_SAMPLES, MOST_SAMPLES


def agreement(found: Sequence[Screened]) -> dict[str, Any]:
    """How many tasks were kept at each level of agreement: {"3 of 4": 12, ...}."""
    kept = Counter(f"{one.agreed} of {one.samples}" for one in found if one.disposition == "kept" and one.samples)
    return dict(sorted(kept.items()))
