"""Throw strings at every built-in grader: none may raise, err, hang or score outside 0 to 1.

    python tools/fuzz_graders.py --strings 10_000_000    # all cores, 5 to 10 minutes; any --seed finds others

Graders and items are those of the golden cases. A string is a mutated, spliced or repeated sample of its family, a text
that hurts parsers, or noise. What the model wrote must never be an *error*: that would let it dodge a bad score.
Prints each offence with what reproduces it; exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rft_ilab.grading.engine import SkillGrader, grader_of, is_score
from rft_ilab.types import Rollout, Task

CHECKS = Path(__file__).resolve().parents[1] / "rft_ilab" / "grading" / "checks"
BATCH, SLOW_SECONDS, SHARE_OF_LONG = 256, 1.0, 1 / 500
# Strings in proportion to what one costs: those that start a process or load a library get fewer.
WEIGHT = {
    "reasoning_gym": 0.002, "mathematics": 0.004, "sql": 0.004, "code": 0.001,
    "ifeval": 0.1, "text_similarity": 0.1, "json_schema": 0.3,
}  # fmt: skip
NASTY = (
    "", " ", "\x00", "\u200b", "\ud800", "\ufeff", "\u202e", "\u0663", "½", "\U0001d7d9", "\u0130", "ß", "NaN",
    "-Infinity", "1e999", "-0", "9" * 400, "0x1F", "1_000", "1,000,000.5", "1/0", "5%", "$4", "[", "{", "]" * 50,
    "[" * 300, '{"a":' * 80, '"', "\\", "'", '{"a":1,"a":2}', "\\frac{1}{0}", "\\boxed{", "\\boxed{}", "9^{9^{9^9}}",
    "10**10**10", "(" * 100, "factorial(10**9)", "__import__('os').system('x')", "SELECT 1", "; DROP TABLE p",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM r) SELECT * FROM r", "<think>", "</think>", "<answer>",
    "```python\n", "```", "def f(", "a" * 60 + "!", "aaaa " * 40, "\n" * 40, "None", "true", "null", "2024-02-30",
    "31/12/1999", "\r\n", "\t", "%s%n", "../../etc/passwd", "{{item.reference}}",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """A grader with an item it can grade, and samples of its family to start from."""

    family: str
    grader: SkillGrader
    config: str
    task: Task
    seeds: tuple[str, ...]


def targets() -> dict[str, list[Target]]:
    """By family: every distinct grader and item of its golden cases, but those that are to be an error."""
    found: dict[str, list[Target]] = {}
    for path in sorted(CHECKS.glob("*.cases.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        seeds = tuple(row["sample"] for row in rows if len(row["sample"]) < 4000)
        seen: dict[str, Target] = {}
        for row in rows:
            key = json.dumps([row["grader"], row["item"]], sort_keys=True)
            if row.get("error") or key in seen or row["grader"].get("evaluation_metric") == "cosine":
                continue
            item = row["item"]
            task = Task(id="t", skill="", messages=(), reference="", item=item, group="", split="train")
            family = path.name.removesuffix(".cases.jsonl")
            seen[key] = Target(family, grader_of(row["grader"], "", path), key, task, seeds)
        found[path.name.removesuffix(".cases.jsonl")] = list(seen.values())
    return found


def mutate(text: str, seeds: Sequence[str], rng: random.Random) -> str:
    """One small change."""
    at = rng.randrange(len(text) + 1)
    match rng.randrange(9):
        case 0:
            return text[:at] + rng.choice(NASTY) + text[at:]
        case 1:
            return (
                text[:at]
                + chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000))))
                + text[at:]
            )
        case 2:
            return text[:at] + text[at + rng.randrange(1, 8) :]
        case 3:
            return text[:at] + rng.choice(seeds)[rng.randrange(20) :]
        case 4:
            return text[:at] + text[at : at + 9] * rng.randrange(2, 40) + text[at:]
        case 5:
            return rng.choice(NASTY) + text + rng.choice(NASTY)
        case 6:
            return text.translate({rng.randrange(48, 58): rng.randrange(32, 127)})
        case 7:
            return text.swapcase()
    return "".join(rng.choice("0123456789.,/eE+-%[]{}\":' \n\\()_abzAZ") for _ in range(rng.randrange(40)))


def strings(target: Target, rng: random.Random) -> Iterator[str]:
    while True:
        text = rng.choice(target.seeds)
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            text = mutate(text, target.seeds, rng)
        if rng.random() < SHARE_OF_LONG:
            text = (text or "a") * (rng.choice((20_000, 200_000)) // max(1, len(text)))
        yield text


def fuzz(family: str, count: int, seed: int) -> tuple[str, int, float, list[str]]:
    """(family, strings tried, seconds of the slowest single grade seen, offences)."""
    rng = random.Random(f"{family}/{seed}")
    pool, tried, slowest = targets()[family], 0, 0.0
    offences: list[str] = []
    while tried < count and len(offences) < 10:
        target = rng.choice(pool)
        texts = [text for text, _ in zip(strings(target, rng), range(min(BATCH, count - tried)), strict=False)]
        pairs = [
            (target.task, Rollout(task_id="t", index=i, policy_id="p", completion=text, stop="eos"))
            for i, text in enumerate(texts)
        ]
        start = time.process_time()
        try:
            grades = target.grader.grade(pairs)
        except Exception as error:  # noqa: BLE001 - this is what the fuzzer looks for
            offences.append(f"{family}: {type(error).__name__}: {error} | {target.config}")
            continue
        if time.process_time() - start > SLOW_SECONDS / 4:  # one of them may be slow: look again, one by one
            for pair in pairs:
                start = time.process_time()
                target.grader.grade([pair])
                slowest = max(slowest, taken := time.process_time() - start)
                if taken > SLOW_SECONDS:
                    offences.append(f"{family}: {taken:.1f} s for {pair[1].completion[:200]!r} | {target.config}")
        for text, grade in zip(texts, grades, strict=True):
            if grade.error is not None or not is_score(grade.score):
                offences.append(f"{family}: {grade.error or grade.score} for {text[:300]!r} | {target.config}")
        tried += len(texts)
    return family, tried, slowest, offences


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strings", type=lambda text: int(text.replace("_", "")), default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", action="append", help="only this one; may be repeated")
    arguments = parser.parse_args(argv)
    families = arguments.family or sorted(targets())
    total = sum(WEIGHT.get(family, 1.0) for family in families)
    jobs = []
    for family in families:
        share = int(arguments.strings * WEIGHT.get(family, 1.0) / total) + 1
        parts = 4 if share > 10_000 else 1
        jobs += [(family, share // parts + 1, arguments.seed * 100 + part) for part in range(parts)]
    tried: dict[str, int] = {}
    slowest: dict[str, float] = {}
    offences: list[str] = []
    start = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for family, count, slow, found in pool.map(fuzz, *zip(*jobs, strict=True)):
            tried[family] = tried.get(family, 0) + count
            slowest[family] = max(slowest.get(family, 0.0), slow)
            offences += found
            for offence in found:
                print(offence, file=sys.stderr)
    for family, count in tried.items():
        print(f"{family:18s} {count:12,d} strings   slowest of the slow batches {slowest[family] * 1000:8.1f} ms")
    seconds = time.monotonic() - start
    print(f"{sum(tried.values()):,d} strings in {seconds:.0f} s, {len(offences)} offences, seed {arguments.seed}")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
