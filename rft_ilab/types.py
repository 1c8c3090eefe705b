"""The nouns of rft-ilab. Frozen values and two protocols; imports nothing of the project.

A *skill* has *tasks*; a *policy* samples *rollouts* of a task; a *grader* turns a rollout into a
*grade*: right, wrong, or error. Those three never mix: an error is not a zero.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Split = Literal["train", "val", "test"]
Origin = Literal["seed", "authored", "generated", "synthetic"]
Tier = Literal["target", "critical", "supporting", "advisory"]
Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Stop = Literal["eos", "length"]

# Arms of training whose reward knows nothing of right and wrong (rft_ilab/rl/controls.py).
CONTROLS = ("random-reward", "format-only")

EXIT_CODE: Mapping[Outcome, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A seed example of ``qna.yaml``; doubles as a demonstration turn."""

    question: str
    answer: str
    context: str | None = None

    @property
    def prompt(self) -> str:
        """The user turn: InstructLab puts the context before the question."""
        return f"{self.context.strip()}\n\n{self.question}" if self.context else self.question


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """A leaf of the taxonomy.

    ``name`` is the path below ``compositional_skills``, e.g. ``healthcare/patient_triage``.
    ``grader`` is the parsed ``grader.json`` with ``ref`` already resolved; ``grader_digest``
    changes when the grader does (source files included). ``commit`` ends in ``+dirty`` when the
    leaf differs from git.
    """

    name: str
    directory: Path
    description: str
    seeds: tuple[Seed, ...]
    grader: Mapping[str, Any]
    grader_digest: str
    tier: Tier = "supporting"
    commit: str = "unversioned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One prompt with its explicit right answer.

    ``item`` holds every field that a grader may see (the row without ``messages``).
    ``reference`` is a completion that the grader must accept; lint proves it.
    """

    id: str
    skill: str
    messages: tuple[Message, ...]
    reference: str
    item: Mapping[str, Any] = field(hash=False)
    group: str
    split: Split
    origin: Origin = "authored"

    @staticmethod
    def make_id(skill: str, messages: Sequence[Message], reference: str) -> str:
        """Content identity: sha256 over skill, messages and reference (64 hex digits)."""
        return digest([skill, [m.as_dict() for m in messages], reference])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn. ``temperature == 0`` is greedy; ``seed`` fixes every draw."""

    temperature: float = 1.0
    max_tokens: int = 64
    seed: int = 0

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One completion of one task. ``token_ids`` and ``logprobs`` (nats) have shape (T,)."""

    task_id: str
    index: int
    policy_id: str
    completion: str
    stop: Stop
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None


class UngradedError(ValueError):
    """Somebody asked an erroneous grade for its reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What a grader said of one rollout: right, wrong, or error.

    ``score is None`` and ``passed is None`` exactly when ``error`` is set.
    ``answer`` is what was extracted; ``reason`` is shown to people.
    """

    task_id: str
    index: int
    policy_id: str
    score: float | None
    passed: bool | None
    answer: str | None = None
    reason: str = ""
    error: str | None = None
    grader_digest: str = ""

    def __post_init__(self) -> None:
        if (self.score is None) != (self.error is not None) or (self.passed is None) != (self.score is None):
            raise ValueError("a grade has either a score and a pass, or an error")
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise ValueError(f"score {self.score!r} lies outside [0, 1]")

    @property
    def reward(self) -> float:
        """The score as a training signal; an error has none, so reading it raises."""
        if self.score is None:
            raise UngradedError(f"task {self.task_id[:12]}: {self.error}")
        return self.score


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What the gate asks of one skill: which tasks, how sampled, how much loss is tolerable.

    ``margin`` is the largest tolerated loss (non-inferiority), as a fraction of 1.
    ``demonstrations`` are the seed turns before each prompt.
    """

    name: str
    task_ids: tuple[str, ...]
    samples: int
    sampling: Sampling
    demonstrations: int
    tier: Tier
    margin: float

    @property
    def digest(self) -> str:
        s = self.sampling
        drawn = [s.temperature, s.max_tokens, s.seed]
        return digest([self.name, list(self.task_ids), self.samples, drawn, self.demonstrations])


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The messages that are really sent for a task: demonstrations included."""

    task_id: str
    messages: tuple[Message, ...]


class Grader(Protocol):
    """Grades completions of one skill; a crash inside becomes ``Grade.error``, never a number."""

    digest: str

    def grade(self, pairs: Sequence[tuple[Task, Rollout]]) -> list[Grade]: ...


class Policy(Protocol):
    """Something that answers prompts. ``id`` changes whenever its answers could."""

    id: str

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]: ...


def digest(value: Any) -> str:
    """sha256 over canonical JSON: the identity used by ids, caches and manifests.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


# Made once: an encoder costs more than the encoding of a short text.
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))
