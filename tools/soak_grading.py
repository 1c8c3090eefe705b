"""Grade for a long time with 1 % hostile samples: nothing misjudged, nothing growing.

    python tools/soak_grading.py --minutes 10

Two streams take turns: a Python grader in the cage that, on hostile samples, kills itself, hangs, eats memory, writes
into descriptors or returns nonsense (each must be an error and cost its sample only), and model-written solutions
behind the split judge, hostile ones from tests/cage among them (each must fail its tests, and that is a 0, no error).
The last line is one JSON object; exit status 1 if a verdict was wrong or memory or descriptors grew.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rft_ilab.grading.cage import pool
from rft_ilab.grading.cage.judge import CodeJob, run_many
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.sandbox import Limits, run_python

HOSTILE = 0.01
MAX_GROWTH_MB = 40.0
GRADER = """
import os, re, time
def grade(sample, item):
    match item["do"]:
        case "exit": os._exit(0)
        case "hang": time.sleep(60)
        case "spin":
            while True: pass
        case "memory": return len("x" * (4 << 30)) and 1.0
        case "none": return None
        case "two": return 2.0
        case "nan": return float("nan")
        case "text": return "1"
        case "raise": raise ValueError("on purpose")
        case "deep": return float(eval("(" * 5000 + "1" + ")" * 5000))
        case "write":
            for fd in range(64):
                try: os.write(fd, b"\\1" * 64)
                except OSError: pass
            return 1.0
    numbers = re.findall(r"-?\\d+", sample["output_text"])
    return float(bool(numbers) and numbers[-1] == item["reference"])
"""
TRICKS = ("exit", "hang", "spin", "memory", "none", "two", "nan", "text", "raise", "deep", "write")
RIGHT = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return a - b\n"


def cheats() -> list[Any]:
    """The hostile solutions of the attack corpus; they say themselves which tests they are to fail."""
    path = Path(__file__).resolve().parents[1] / "tests" / "cage" / "corpus.py"
    spec = importlib.util.spec_from_file_location("corpus", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["corpus"] = module
    spec.loader.exec_module(module)
    return list(module.SOLUTIONS)


def grader_batch(rng: random.Random, wrong: Counter[str], size: int = 640) -> int:
    samples, wanted = [], []
    for _ in range(size):
        do = rng.choice(TRICKS) if rng.random() < HOSTILE else ""
        number = rng.randrange(1000)
        reference = number if rng.random() < 0.5 else number + 1
        samples.append(Sample(f"so it is {number}", {"reference": str(reference), "do": do}))
        wanted.append(None if do else float(number == reference))
    marks: Sequence[Mark] = run_python(GRADER, samples, Limits(seconds=0.5))
    for sample, mark, score in zip(samples, marks, wanted, strict=True):
        if mark.score != score:
            wrong[f"grader, {sample.item['do'] or 'honest'}: {mark.score} instead of {score} ({mark.error})"] += 1
    return size


def solution_batch(rng: random.Random, hostile: Sequence[Any], wrong: Counter[str], size: int = 64) -> int:
    jobs, names = [], []
    for _ in range(size):
        cheat = rng.choice(hostile) if rng.random() < HOSTILE else None
        right = rng.random() < 0.5
        source = cheat.source if cheat else RIGHT if right else WRONG
        jobs.append(CodeJob(solution=source, tests=cheat.tests if cheat else ["assert add(2, 3) == 5"], seconds=1.0))
        names.append((cheat.name if cheat else "", right))
    for (name, right), result in zip(names, run_many(jobs), strict=True):
        passed = bool(result.passed) and all(result.passed)
        if result.error is not None or passed != (right and not name):
            wrong[f"solution, {name or 'honest'}: {result.passed} {result.error}"] += 1
    return size


def footprint() -> tuple[float, int]:
    """(MB of this process and its fork servers, open descriptors of this process)."""
    pids = [os.getpid(), *(server.pid for server in pool.default().running())]
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    rng, wrong, hostile = random.Random(arguments.seed), Counter[str](), cheats()
    grades = solutions = 0
    start = time.monotonic()
    first: tuple[float, int] | None = None
    while (passed := time.monotonic() - start) < arguments.minutes * 60:
        grades += grader_batch(rng, wrong)
        solutions += solution_batch(rng, hostile, wrong)
        if first is None and passed > arguments.minutes * 6:  # after a tenth: everything has been loaded
            first = footprint()
            print(f"{passed:.0f} s: {first[0]:.0f} MB, {first[1]} descriptors", flush=True)
    last = footprint()
    first = first or last
    for what, count in wrong.most_common(20):
        print(f"WRONG {count} x {what}", file=sys.stderr)
    result = {
        "minutes": round((time.monotonic() - start) / 60, 2), "grades": grades, "solutions": solutions,
        "misjudged": wrong.total(), "mb_first": round(first[0], 1), "mb_last": round(last[0], 1),
        "descriptors_first": first[1], "descriptors_last": last[1],
    }  # fmt: skip
    print(json.dumps(result))
    return int(wrong.total() > 0 or last[0] - first[0] > MAX_GROWTH_MB or last[1] > first[1] + 4)


if __name__ == "__main__":
    sys.exit(main())
