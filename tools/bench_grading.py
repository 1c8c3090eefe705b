"""How fast graders are, and what the cage costs: every way of running the same grader, interleaved, in one run.

    make bench-grading                      # about a minute
    python tools/bench_grading.py --seconds 5

Prints one table; the last line is one JSON object. Rates of in-process graders are per second of processor time of
one core; of the cage per second of wall time, with as many workers as there are cores. ``cheap_per_s_core`` is the
slowest of the cheap ones. Quote medians, and say what else ran.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.grading.cage.judge import run_tests
from rft_ilab.grading.engine import SkillGrader, grader_of
from rft_ilab.types import Rollout, Task

IN, OUT = "{{sample.output_text}}", "{{item.reference}}"
LABELS = ["EMERGENCY", "REFILL", "RX_QUESTION", "APPT_QUESTION", "SCHEDULE", "RESCHEDULE", "CANCEL", "OTHER"]
# grader, reference, answers of which every second one is wrong
CHEAP: dict[str, tuple[dict[str, Any], str, tuple[str, str]]] = {
    "string_check": ({"operation": "eq"}, "RX_QUESTION", ("RX_QUESTION", "OTHER")),
    "label": ({"labels": LABELS}, "RX_QUESTION", ("**Rx question.**", "OTHER")),
    "number": ({"tolerance": 0.01}, "1234.5", ("The answer is 1,234.50.", "It is 12 or 13")),
    "date": ({}, "2024-10-11", ("October 11, 2024", "2024-11-10")),
    "json_fields": ({}, '{"item": "mugs", "quantity": 3}', ('{"quantity": 3, "item": "mugs"}', '{"item": "mugs"}')),
    "set_f1": ({}, "red, green", ("green, red", "red, blue")),
}
PYTHON = """
import re
def grade(sample, item):
    numbers = re.findall(r"-?\\d+", sample["output_text"])
    return float(bool(numbers) and numbers[-1] == item["reference"])
"""
SOLUTION = "def add(a, b):\n    return a + b\n"
ASSERTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add('a', 'b') == 'ab'"]
BATCH, ROUNDS = 4096, 5


def pairs(reference: str, answers: Sequence[str], count: int) -> list[tuple[Task, Rollout]]:
    """``count`` rollouts in groups of eight, as RL grades them."""
    made: list[tuple[Task, Rollout]] = []
    for i in range(count):
        if i % 8 == 0:
            item = {"reference": reference, "number": i}
            task = Task(
                id=f"t{i}", skill="", messages=(), reference=reference, item=item, group="", split="train"
            )  # fmt: skip
        text = answers[i % len(answers)]
        made.append((task, Rollout(task_id=task.id, index=i % 8, policy_id="p", completion=text, stop="eos")))
    return made


def checked(grader: SkillGrader, batch: Sequence[tuple[Task, Rollout]]) -> None:
    """Grade a batch; a benchmark of wrong verdicts would be worth nothing."""
    scores = [grade.score for grade in grader.grade(batch)]
    if scores[0] != 1.0 or scores[1] == 1.0 or None in scores:
        raise SystemExit(f"a wrong verdict in the benchmark: {scores[:2]}")


def rate(call: Callable[[], Any], units: int, seconds: float, clock: Callable[[], float]) -> float:
    start, done = clock(), 0
    while (passed := clock() - start) < seconds:
        call()
        done += units
    return done / passed


def median_ms(call: Callable[[], Any], seconds: float) -> float:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def plain_exec(batch: Sequence[tuple[Task, Rollout]]) -> None:
    """What many trainers do: the grader's source in our own process."""
    names: dict[str, Any] = {}
    exec(PYTHON, names)
    for task, rollout in batch:
        names["grade"]({"output_text": rollout.completion}, task.item)


def trl_reward(batch: Sequence[tuple[Task, Rollout]]) -> None:
    """The call of TRL's GRPOTrainer: ``reward_func(prompts=..., completions=..., **columns) -> list of floats``."""
    names: dict[str, Any] = {}
    exec(PYTHON, names)

    def reward(prompts: Sequence[str], completions: Sequence[str], item: Sequence[Any]) -> list[float]:
        return [names["grade"]({"output_text": text}, each) for text, each in zip(completions, item, strict=True)]

    reward(
        prompts=[task.id for task, _ in batch],
        completions=[rollout.completion for _, rollout in batch],
        item=[task.item for task, _ in batch],
    )


def one_subprocess(pair: tuple[Task, Rollout]) -> None:
    code = PYTHON + "\nimport json, sys\nprint(grade(*json.load(sys.stdin)))\n"
    sent = json.dumps([{"output_text": pair[1].completion}, dict(pair[0].item)])
    subprocess.run([sys.executable, "-I", "-S", "-c", code], input=sent, text=True, capture_output=True, check=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="of each figure in each of five rounds")
    seconds = parser.parse_args(argv).seconds
    where = Path("grader.json")
    cheap: dict[str, Callable[[], None]] = {}
    for kind, (options, reference, answers) in CHEAP.items():
        grader = grader_of({"type": kind, "input": IN, "reference": OUT, **options}, "", where)
        batch = pairs(reference, answers, BATCH)
        cheap[kind] = lambda grader=grader, batch=batch: checked(grader, batch)  # type: ignore[misc]
    caged = grader_of({"type": "python", "source": PYTHON}, "", where)
    batch = pairs("12", ("so 7 and 5 are 12", "it is 13"), BATCH)
    wall, cpu = time.perf_counter, time.process_time
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    checked(caged, batch[:8])
    if not run_tests(SOLUTION, ASSERTS).passed == (True, True, True):
        raise SystemExit("the split judge refuses a right solution")
    for _ in range(ROUNDS):
        for kind, call in cheap.items():
            note(f"{kind}, in process", rate(call, BATCH, seconds, cpu))
        note("python, plain exec", rate(lambda: plain_exec(batch), BATCH, seconds, cpu))
        note("python, TRL reward call", rate(lambda: trl_reward(batch), BATCH, seconds, cpu))
        note("python, cage, batch", rate(lambda: checked(caged, batch), BATCH, seconds, wall))
        note("python, cage, single (ms)", median_ms(lambda: caged.grade(batch[:1]), seconds))
        note("python, subprocess each (ms)", median_ms(lambda: one_subprocess(batch[0]), seconds))
        note("code, 3 asserts, split judge (ms)", median_ms(lambda: run_tests(SOLUTION, ASSERTS), seconds))
    print(
        f"{ROUNDS} interleaved rounds of {seconds:g} s a figure, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    for name, values in figures.items():
        unit = "" if name.endswith("(ms)") else "/s"
        print(f"{name:36s} {statistics.median(values):12,.2f}{unit}  ({min(values):,.2f} to {max(values):,.2f})")
    median = {name: statistics.median(values) for name, values in figures.items()}
    slowest = min(median[f"{kind}, in process"] for kind in CHEAP)
    result = {
        "cheap_per_s_core": round(slowest),
        "cage_batch_per_s": round(median["python, cage, batch"]),
        "cage_single_ms_p50": round(median["python, cage, single (ms)"], 2),
        "split_judge_ms_p50": round(median["code, 3 asserts, split judge (ms)"], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
