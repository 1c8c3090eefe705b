"""Grading on a Ray cluster: 1, 2 and 4 worker processes, two nodes, one of them killed; bit for bit the same.

    .venv/bin/python tools/bench_ray.py                 # two to three minutes
    .venv/bin/python tools/bench_ray.py --samples 3840

Two graders, in the sandbox of the worker: one waits 10 ms for each sample, as a grader that runs programs does, and
one that computes for about 5 ms. The clusters are started here, on loopback. Prints a table; the last line is one JSON
object of seconds. What computes cannot be faster than the machine has cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.grading.engine import build_grader
from rft_ilab.scaleout.ray_cluster import RayCluster
from rft_ilab.scaleout.ray_spread import RayGrader
from rft_ilab.types import Grade, Rollout, Skill, Task

WORK = {"waits": "time.sleep(0.01)", "computes": "sum(i * i for i in range(60_000))"}
SOURCE = """
import re, time
def grade(sample, item):
    {work}
    numbers = re.findall(r"-?\\d+", sample["output_text"])
    return float(bool(numbers) and numbers[-1] == item["reference"])
"""


def skill(work: str) -> Skill:
    grader = {"type": "python", "source": SOURCE.format(work=WORK[work])}
    return Skill(
        name="bench/ray", directory=Path("bench"), description="", seeds=(), grader=grader, grader_digest=work
    )  # fmt: skip


def pairs(count: int) -> list[tuple[Task, Rollout]]:
    made = []
    for i in range(count):
        item = {"reference": str(i)}
        task = Task(id=f"t{i}", skill="", messages=(), reference=str(i), item=item, group="", split="test")
        text = f"it is {i + (i % 2)}"
        made.append((task, Rollout(task_id=task.id, index=0, policy_id="p", completion=text, stop="eos")))
    return made


@contextlib.contextmanager
def clusters(cpus: Sequence[int]) -> Iterator[Any]:
    """A cluster of nodes with so many processors each; the last one may be killed."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], "include_dashboard": False})
    made.rft_nodes = [made.add_node(num_cpus=count) for count in cpus[1:]]
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(argv)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    batch = pairs(given.samples)
    seconds: dict[str, float] = {}
    wanted: dict[str, list[Grade]] = {}

    def measure(name: str, grade: Any, rounds: int = given.rounds) -> None:
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            grades = grade()
            times.append(time.perf_counter() - start)
            if grades != wanted.setdefault(name.split(",")[0], grades):
                raise SystemExit(f"{name}: other grades than in this process")
        seconds[name] = round(statistics.median(times), 2)
        print(f"{name:44s} {seconds[name]:7.2f} s  ({min(times):.2f} to {max(times):.2f})  the same", flush=True)

    print(f"{given.samples} samples, medians of {given.rounds}, {len(os.sched_getaffinity(0))} cores", end=", ")
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    for work in WORK:
        local = build_grader(skill(work))
        measure(f"{work}, in this process", lambda local=local: local.grade(batch))  # type: ignore[misc]
    for name, cpus in (("1 worker", [1]), ("2 workers", [2]), ("4 workers", [4]), ("2 nodes of 1", [1, 1])):
        with clusters(cpus) as cluster:
            there = RayCluster(cluster.address)
            for work in WORK:
                grader = RayGrader(there, skill(work))
                grader.grade(batch[: 128 * sum(cpus)])  # workers are up
                measure(f"{work}, {name}", lambda grader=grader: grader.grade(batch))  # type: ignore[misc]
            if len(cpus) > 1:
                killed = f"waits, {name}, one killed in the middle"
                again = RayGrader(there, skill("waits"))
                victim = cluster.rft_nodes[0]
                timer = threading.Timer(seconds[f"waits, {name}"] / 2, cluster.remove_node, (victim, False))
                timer.start()
                measure(killed, lambda again=again: again.grade(batch), 1)  # type: ignore[misc]
                timer.join()
                deadline = time.monotonic() + 60
                while there.nodes != 1:
                    if time.monotonic() > deadline:
                        raise SystemExit("no node was killed")
                    time.sleep(0.5)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
