"""What becomes of the rows of one skill, and the line that each of them gets in the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rft_ilab.errors import SkillError
from rft_ilab.host.sdg.leaves import ByContext
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import task_from_row
from rft_ilab.store import Cache
from rft_ilab.synth.contamination import HeldOut
from rft_ilab.synth.ledger import Disposition, said, sampling_row
from rft_ilab.synth.screening import Known, Screened, entry, screen
from rft_ilab.synth.sources import Proposal, proposed_question
from rft_ilab.types import Grade, Policy, Rollout, Sampling, Seed, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A generated question with its answer. ``seed`` is the question of the seed example that SDG showed."""

    question: str
    answer: str
    context: str | None = None
    seed: str | None = None

    @property
    def prompt(self) -> str:
        """The user's turn, as :class:`rft_ilab.types.Seed` has it."""
        return Seed(question=self.question, answer=self.answer, context=self.context).prompt


class SkillJudge:
    """Judges rows of one skill in as many calls as they come; questions of earlier calls are remembered."""

    def __init__(self, environment: Environment, found: HeldOut, *, samples: int, needed: int, seed: int) -> None:
        self.environment = environment
        self._samples, self._needed, self._seed = samples, needed, seed
        groups = {task.group for task in environment.tasks if task.split != "train"}
        self._questions = ByContext(environment)
        self._known = Known(found, self._questions, groups)

    def judge(self, rows: Sequence[Row], policy: Policy, cache: Cache) -> list[Screened]:
        """One :class:`Screened` for each row, in order.

        The grader must accept the row's own answer as the reference that it is to be, or asking anybody else is
        pointless; then ``needed`` of ``samples`` independent answers must agree with it.
        Raises PolicyError if the model does not answer, SandboxError if graders cannot run at all.
        """
        for row in rows:
            if row.context:
                self._questions.about(f"{row.context.strip()}\n\n")
        proposals = [
            replace(proposed_question(row.prompt if row.question.strip() else "", row.answer, i), policy_id=policy.id)
            for i, row in enumerate(rows)
        ]
        refused = self._refused(proposals)
        asked = [proposal for i, proposal in enumerate(proposals) if i not in refused]
        found = screen(
            self.environment, asked, self._known, policy,
            samples=self._samples, needed=self._needed, seed=self._seed, cache=cache,
        )  # fmt: skip
        rest = iter(found)
        return [refused[i] if i in refused else next(rest) for i in range(len(proposals))]

    def _refused(self, proposals: Sequence[Proposal]) -> dict[int, Screened]:
        """Those whose own answer the grader does not accept. What makes no task is left for screening to say.

        A grader may fail because the answer is no reference (no label of the skill). If an authored task is graded,
        but no longer when its reference is replaced by this answer, then the answer is to blame: the row is wrong.
        """
        tasks = {}
        for i, proposal in enumerate(proposals):
            try:
                tasks[i] = task_from_row(self.environment.skill, proposal.row or {})
            except SkillError:
                continue
        refused: dict[int, Screened] = {}
        failed = []
        for i, grade in zip(tasks, self._grade([(task, task.reference) for task in tasks.values()]), strict=True):
            if not grade.passed:
                fate: Disposition = "wrong" if grade.error is None else "error"
                reason = f"the row's own answer: {said(grade)}"
                refused[i] = Screened(proposal=proposals[i], task=tasks[i], disposition=fate, reason=reason)
                failed += [i] if grade.error is not None else []
        authored = self.environment.tasks[0]
        if failed and self._grade([(authored, authored.reference)])[0].error is None:
            replaced = [
                (replace(authored, item={**authored.item, "reference": tasks[i].reference}), authored.reference)
                for i in failed
            ]
            for i, grade in zip(failed, self._grade(replaced), strict=True):
                if grade.error is not None:
                    refused[i] = replace(refused[i], disposition="wrong")
        return refused

    def _grade(self, answers: Sequence[tuple[Task, str]]) -> list[Grade]:
        pairs = [
            (task, Rollout(task_id=task.id, index=0, policy_id="row", completion=text, stop="eos"))
            for task, text in answers
        ]
        return self.environment.grader.grade(pairs) if pairs else []

    def line(self, row: Row, one: Screened, policy: Policy, block: str) -> dict[str, Any]:
        """The line of the ledger: as rft-ilab's own ledgers have it, and what is particular to SDG."""
        settings = self.environment.settings
        sampling = Sampling(max_tokens=settings.max_tokens, seed=self._seed)
        return entry(self.environment, one).as_row() | {
            "id": uuid.uuid4().hex,  # a row has no other identity: SDG may write the same one twice
            "block": block,
            "policy_id": policy.id,
            "sampling": sampling_row(sampling),
            "demonstrations": settings.demonstrations,
            "prompt": row.prompt,
            "completion": row.answer,
            "seed_question": row.seed,
            "answers": [graded.rollout.completion for graded in one.group],
        }
