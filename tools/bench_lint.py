"""What `ilab taxonomy lint` costs: 1,000 skills with 100,000 tasks, and one skill that a branch changed among them.

A made-up taxonomy of five cheap kinds of graders lies in a git repository of its own; the real `ilab` is started, on
two processors, and timed from its start to its end. Self-tests included, nothing cached. Of a few rounds the best and
the median are told: on a shared machine the best says what lint costs, the median what else was going on. The last
line is JSON; exits 1 if the best of either is over its limit.

    python tools/bench_lint.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.skills.leaf import qna_text
from rft_ilab.skills.style import grader_text, row_text
from rft_ilab.types import Seed

LIMITS = {"lint_1000_s": 20.0, "lint_one_s": 2.0}
COMMON = {"input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
GRADERS: Sequence[Mapping[str, Any]] = (
    {"type": "label", **COMMON, "labels": ["yes", "no"]},
    {"type": "number", **COMMON},
    {"type": "date", **COMMON},
    {"type": "string_check", **COMMON, "operation": "eq"},
    {"type": "json_fields", **COMMON, "fields": ["item", "count"]},
)
SPLITS = ("train",) * 6 + ("val",) + ("test",) * 3


def reference(kind: str, chance: random.Random, index: int) -> str:
    match kind:
        case "label":
            return ("yes", "no")[index % 2]
        case "number":
            return str(chance.randint(2, 99_999))
        case "date":
            return f"{chance.randint(1950, 2040)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        case "string_check":
            return "".join(chance.choices("abcdefgh", k=8))
        case _:
            return json.dumps({"item": f"part {chance.randint(1, 999)}", "count": chance.randint(2, 99)})


def write_skill(leaf: Path, number: int, tasks: int) -> None:
    """A skill that lint finds nothing to say about."""
    chance = random.Random(number)
    grader = GRADERS[number % len(GRADERS)]
    kind = str(grader["type"])
    leaf.mkdir(parents=True)
    rows = []
    for index in range(tasks):
        prompt = f"Case {chance.randrange(10**9)}-{index} of skill {number}, as the desk wrote it down. What is it?"
        group = index // 2
        rows.append(
            {
                "id": f"{number}-{index}",
                "messages": [{"role": "user", "content": prompt}],
                "reference": reference(kind, chance, index),
                "group": f"{number}-{group}",
                "split": SPLITS[group % len(SPLITS)],
            }
        )
    seeds = [Seed(question=f"Seed {i} of skill {number}?", answer=reference(kind, chance, i)) for i in range(5)]
    (leaf / "qna.yaml").write_text(qna_text("Say what it is.", seeds, "bench"), encoding="utf-8")
    (leaf / "grader.json").write_text(grader_text(grader), encoding="utf-8")
    (leaf / "tasks.jsonl").write_text("".join(f"{row_text(row)}\n" for row in rows), encoding="utf-8")
    (leaf / "attribution.txt").write_text("Title of work: made up\n", encoding="utf-8")


def git(repository: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(repository), *identity, *arguments], check=True, stdout=subprocess.DEVNULL)


def timed(arguments: Sequence[str | Path], rounds: int, processors: set[int]) -> tuple[list[float], list[float]]:
    """Wall and processor seconds of each round. Raises RuntimeError if lint has anything to say."""
    walls, cpus = [], []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(
            [Path(sys.executable).with_name("ilab"), "taxonomy", "lint", *arguments],
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, processors) if hasattr(os, "sched_setaffinity") else None,
        )
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if done.returncode or done.stdout:
            raise RuntimeError(f"lint ended with {done.returncode}:\n{done.stdout[:2000]}{done.stderr[:2000]}")
    return walls, cpus


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skills", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=100, help="tasks of each skill")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processors", type=int, default=2)
    options = parser.parse_args()
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(options.processors))
    processors = set(usable[: options.processors])
    told: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-lint-") as made:
        taxonomy = Path(made) / "taxonomy"
        for number in range(options.skills):
            write_skill(
                taxonomy / "compositional_skills" / f"area_{number // 50}" / f"skill_{number}", number, options.tasks
            )
        git(taxonomy, "init", "-q", "-b", "main")
        git(taxonomy, "add", "-A")
        git(taxonomy, "commit", "-q", "-m", "skills")
        git(taxonomy, "switch", "-q", "-c", "change")
        changed = taxonomy / "compositional_skills" / "area_0" / "skill_1" / "attribution.txt"
        changed.write_text("Title of work: made up again\n", encoding="utf-8")
        print(f"{options.skills:,} skills, {options.skills * options.tasks:,} tasks, {len(processors)} processors")
        here: list[str | Path] = ["--taxonomy-path", taxonomy]
        for key, what, arguments, rounds in (
            ("lint_one_s", "one changed skill", [*here, "--changed", "main"], 3 * options.rounds),
            ("lint_1000_s", "all skills", here, options.rounds),
        ):
            walls, cpus = timed(arguments, rounds, processors)
            told |= {key: round(min(walls), 2), key.replace("_s", "_median_s"): round(statistics.median(walls), 2)}
            told[key.replace("_s", "_cpu_s")] = round(min(cpus), 2)
            print(
                f"  {what:<18} best {min(walls):6.2f} s, median {statistics.median(walls):6.2f} s of {rounds}; "
                f"processor time {min(cpus):6.2f} s; limit {LIMITS[key]:g} s"
            )
    print(json.dumps(told))
    return int(any(told[key] > limit for key, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
