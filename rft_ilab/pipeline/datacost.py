"""What the data stage will cost at most, said before it starts.

Tasks that do not exist yet are taken to be as long as those that do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rft_ilab.grading.generator import has_generator
from rft_ilab.pipeline.cost import minutes, sampling_positions, sampling_tokens, tokens
from rft_ilab.pipeline.request import Workspace
from rft_ilab.rollouts import Environment


@dataclass(slots=True, kw_only=True)
class DataCost:
    """``answers`` to ``tasks``; ``written``: tasks that a teacher writes, each checked by independent answers.

    ``read`` and ``write`` are tokens of a teacher behind an endpoint, ``positions`` what is computed in this process.
    """

    tasks: int = 0
    answers: int = 0
    written: int = 0
    agreement: int = 0
    read: float = 0.0
    write: float = 0.0
    positions: float = 0.0

    @property
    def calls(self) -> int:
        return self.answers + self.written + self.agreement

    def lines(self, *, speed: float | None, endpoint: bool) -> Iterator[str]:
        """For people. ``speed``: positions a second in this process."""
        written = f", {self.written} tasks written by the teacher and checked by {self.agreement} answers"
        yield (
            f"verified data: {self.answers} candidate answers to {self.tasks} tasks will be sampled and graded"
            + (written if self.written else "")
            + (f", {minutes(self.positions, speed)} of computing here" if speed and self.positions else "")
        )
        if endpoint:
            spent = f"{tokens(self.read)} to read, {tokens(self.write)} to write"
            yield f"  at most {self.calls} calls: {spent}; what is in the cache costs nothing"


def planned(space: Workspace, environment: Environment) -> int:
    """How many authored tasks of a skill are to be answered."""
    wanted = space.settings.data.tasks if environment in space.targets else space.settings.data.watched_tasks
    return min(wanted, len(environment.split("train")))


def data_cost(space: Workspace, *, student: bool) -> DataCost:
    """``student``: whether the model to be trained is asked here, because another one is the teacher."""
    settings, cost = space.settings.data, DataCost()
    for e in space.environments:
        plain, target = planned(space, e), e in space.targets
        like = e.split("train")[: max(1, plain)]
        if not like:
            continue
        written = settings.paraphrases + settings.questions if target else 0
        count = plain + written + (settings.generated if target and has_generator(e.skill) else 0)
        calls = count * settings.samples + written * (settings.agree_of + 1)
        here = (settings.band_samples if target else 0) if student else calls / max(1, count)
        read, write = sampling_tokens(e, like, 1)
        cost.tasks += count
        cost.answers += count * settings.samples
        cost.written += written
        cost.agreement += written * settings.agree_of
        cost.read += calls * read / len(like)
        cost.write += calls * write / len(like)
        cost.positions += sampling_positions(like, here) * count / len(like) if here else 0.0
    return cost
