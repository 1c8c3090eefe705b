"""Greedy answers of a policy that says something else in each process: ``torchrun ... -m tests.parallel_answers DIR``.

Rank r leaves in ``DIR/rank-r.json`` what it got: sampled, through a cache of its own, and (the first) alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rft_ilab.rl import parallel
from rft_ilab.rl.evaluate import greedy_answers
from rft_ilab.store import Cache, write_json
from rft_ilab.types import Prompt, Rollout, Sampling
from tests.durable_stage import environment


class Says:
    id = "says"

    def __init__(self, text: str) -> None:
        self.text = text

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]:
        for prompt in prompts:
            yield Rollout(task_id=prompt.task_id, index=0, policy_id=self.id, completion=self.text, stop="eos")


def main(home: Path) -> None:
    with parallel.joined():
        rank = parallel.rank()
        target = environment(home / f"rank-{rank}", "area/target")
        tasks = target.validation(6)
        found: dict[str, list[list[str]]] = {}
        for name, cache in (("sampled", None), ("cached", Cache(home / f"rank-{rank}" / "cache.sqlite"))):
            answers = greedy_answers(Says("eo"[rank] * 3), target, tasks, 0, cache, max_error_share=0.0)
            found[name] = [[graded.task.id, graded.rollout.completion] for graded in answers]
        if rank == 0:
            with parallel.alone():
                answers = greedy_answers(Says("e"), target, tasks, 0, max_error_share=0.0)
                found["alone"] = [[graded.task.id, graded.rollout.completion] for graded in answers]
        write_json(home / f"rank-{rank}.json", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
