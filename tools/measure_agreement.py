"""How often are answers right that independent samples agree on? Asked where the right answer is known.

    python tools/measure_agreement.py [--tasks 100] [--model DIRECTORY | --endpoint URL]

The questions of training tasks are screened as a teacher's new questions would be, with their references hidden; what
is agreed on is then held against the reference, by the skill's own grader. One line a skill and number of agreeing
answers; the last line is one JSON object with the share that is right among those kept by the default, 3 of 4.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

from rft_ilab.config import load_settings
from rft_ilab.pipeline.request import Request, Workspace
from rft_ilab.synth.contamination import HeldOut
from rft_ilab.synth.screening import Known, screen
from rft_ilab.synth.sources import Proposal
from rft_ilab.types import Rollout

SAMPLES, NEEDED = 4, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taxonomy", type=Path, default=Path("taxonomy"))
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--endpoint")
    arguments = parser.parse_args()
    space = Workspace(
        Request(
            taxonomy=arguments.taxonomy, run=Path(), settings=load_settings(arguments.taxonomy),
            model=arguments.model, endpoint=arguments.endpoint,
        )
    )  # fmt: skip
    teacher = space.teacher()
    total: Counter[bool] = Counter()
    for environment in space.environments:
        tasks = environment.split("train")[: arguments.tasks]
        asked = [
            Proposal(
                source="question", text=task.messages[-1].content, index=i,
                row={"messages": [turn.as_dict() for turn in task.messages], "split": "train"},
            )
            for i, task in enumerate(tasks)
        ]  # fmt: skip
        found = screen(
            environment, asked, Known(HeldOut([])), teacher, samples=SAMPLES, needed=1, seed=1, cache=space.cache
        )
        levels: dict[int, Counter[bool]] = defaultdict(Counter)
        for task, one in zip(tasks, found, strict=True):
            if one.disposition != "kept" or one.task is None or one.agreed is None:
                continue
            agreed_on = Rollout(
                task_id=task.id, index=0, policy_id="agreement", completion=one.task.reference, stop="eos"
            )
            (grade,) = environment.grader.grade([(task, agreed_on)])
            levels[one.agreed][bool(grade.passed)] += 1
            if one.agreed >= NEEDED:
                total[bool(grade.passed)] += 1
        for agreed, counts in sorted(levels.items()):
            share = counts[True] / counts.total()
            print(f"{environment.skill.name}: {agreed} of {SAMPLES} agree on {counts.total():>3}, right {share:.0%}")
    share_right = round(total[True] / total.total(), 3) if total else None
    print(json.dumps({"kept": total.total(), "right": total[True], "share_right": share_right}))


if __name__ == "__main__":
    main()
