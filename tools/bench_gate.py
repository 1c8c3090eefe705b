"""What the gate costs when every answer is cached: wall time and memory of the real ``ilab model regress``.

    make bench-gate                              # about two minutes
    python tools/bench_gate.py --tasks 100 --skip-simulation

A scratch taxonomy of ``--skills`` skills with ``--tasks`` test tasks each is answered by two scripted models (one
greedy answer and ``--samples`` random ones a task) through the real gate, which fills the cache. Then ``ilab model
regress`` judges again in fresh processes: it reads skills and tasks, looks up every answer and grade, computes the
statistics and writes verdict and report. ``gate_s`` is the median wall time of that, ``peak_rss_mb`` its largest
resident set. ``warm_regress_s`` is the same on the shipped taxonomy, started by ``make`` as ``make regress`` does.

``false_pass`` and ``false_fail`` are error rates of the gate's rules over ``--repetitions`` made-up pairs of models
each, on nine watched skills: one is worse by exactly its margin, and passes; none differs but by chance, and any fails.
CPU times stand beside the wall times, for machines that others use, too. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN = "bench"
LABELS = ("REFILL", "APPOINTMENT", "RESULTS", "EMERGENCY", "OTHER")
TEXT = "{{sample.output_text}}"
GRADERS: Mapping[str, dict[str, Any]] = {
    "label": {"type": "label", "name": "g", "input": TEXT, "reference": "{{item.reference}}", "labels": list(LABELS)},
    "number": {"type": "number", "name": "g", "input": TEXT, "reference": "{{item.reference}}"},
    "exact": {
        "type": "string_check",
        "name": "g",
        "input": TEXT,
        "reference": "{{item.reference}}",
        "operation": "eq",
    },
}
WORDS = (
    "patient",
    "asks",
    "about",
    "the",
    "order",
    "that",
    "came",
    "late",
    "and",
    "whether",
    "it",
    "can",
    "be",
    "sent",
    "back",
)
RIGHT = {"baseline": 0.7, "candidate": 0.72}


@dataclass(frozen=True)
class Bench:
    """A scratch place for the real ``ilab``: home, configuration, data and cache of its own."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {f"XDG_{name.upper()}_HOME": str(self.root / name) for name in ("config", "data", "cache")}
        path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
        code = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return {**os.environ, **own, "HOME": str(self.root / "home"), "PATH": path, "PYTHONPATH": code}

    @property
    def run(self) -> Path:
        return self.root / "data" / "instructlab" / "rft" / "runs" / RUN

    def ilab(self, *arguments: str) -> list[str]:
        return [str(Path(sysconfig.get_path("scripts")) / "ilab"), *arguments]

    def prepare(self, taxonomy: Path) -> None:
        (self.root / "home").mkdir(parents=True)
        command = self.ilab("config", "init", "--non-interactive", "--taxonomy-path", str(taxonomy))
        subprocess.run(command, check=True, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True)
        for name in RIGHT:
            write_model(self.model(name), name)

    def model(self, name: str) -> Path:
        return self.run / "model" if name == "candidate" else self.root / name

    def fill(self, taxonomy: Path) -> None:
        """Answer every task in a process of its own, whose environment names the scratch cache."""
        command = [sys.executable, __file__, "--fill", str(taxonomy), str(self.run), str(self.model("baseline"))]
        subprocess.run(command, check=True, env=self.environment, stdout=subprocess.DEVNULL)

    def timed(self, command: list[str], rounds: int) -> tuple[float, float, float]:
        """Of ``rounds`` processes: median wall and CPU time (s), largest resident set (MiB). Raises if one fails."""
        walls, cpus, peak = [], [], 0
        for _ in range(rounds):
            with tempfile.TemporaryFile() as said:
                started = time.perf_counter()
                process = subprocess.Popen(
                    command, env=self.environment, cwd=self.root, stdout=subprocess.DEVNULL, stderr=said
                )
                _, _, used = os.wait4(process.pid, 0)
                walls.append(time.perf_counter() - started)
                process.returncode = 0  # it has been waited for
                said.seek(0)
                if b"all answers are cached" not in (errors := said.read()):
                    raise RuntimeError(f"{' '.join(command)}: {errors.decode()[-2000:]}")
            cpus.append(used.ru_utime + used.ru_stime)
            peak = max(peak, used.ru_maxrss)
        return statistics.median(walls), statistics.median(cpus), peak / 1024


def write_model(directory: Path, name: str) -> None:
    """A directory that looks like a model; nobody loads it."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"name": name}))
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(random.Random(name).randbytes(1 << 20))
    # As old as a model usually is: the digest of a file that has just been written is not remembered.
    os.utime(directory / "model.safetensors", (1e9, 1e9))


def write_taxonomy(directory: Path, skills: int, tasks: int, samples: int) -> None:
    toml = f"[gate]\nsamples = {samples}\nwatched_samples = {samples}\n"
    for number in range(skills):
        name, kind = f"bench/skill_{number}", list(GRADERS)[number % len(GRADERS)]
        leaf = directory / "compositional_skills" / name
        leaf.mkdir(parents=True)
        (leaf / "grader.json").write_text(json.dumps(GRADERS[kind]))
        (leaf / "attribution.txt").write_text("Title of work: made up by tools/bench_gate.py\n")
        chance = random.Random(number)
        seeds = "".join(
            f"  - question: '{question(chance, i)}'\n    answer: '{answer(kind, chance)}'\n" for i in range(8)
        )
        qna = f"version: 3\ncreated_by: bench\ntask_description: Skill {number}, answer briefly.\nseed_examples:\n"
        (leaf / "qna.yaml").write_text(qna + seeds)
        splits = ["test"] * tasks + ["val"] * 100 + ["train"] * 100
        with (leaf / "tasks.jsonl").open("w") as file:
            for i, split in enumerate(splits):
                row = {
                    "messages": [{"role": "user", "content": question(chance, 1000 + i)}],
                    "reference": answer(kind, chance),
                    "group": f"{split}-{i // 2}",
                    "split": split,
                }
                file.write(json.dumps(row) + "\n")
        toml += f'\n[skills."{name}"]\ntier = "{"supporting" if number else "target"}"\ndemonstrations = 8\n'
    (directory / "rft.toml").write_text(toml)


def question(chance: random.Random, number: int) -> str:
    return f"Case {number}: {' '.join(chance.choice(WORDS) for _ in range(40))}?"


def answer(kind: str, chance: random.Random) -> str:
    return chance.choice(LABELS) if kind == "label" else str(chance.randrange(1000))


def fill(taxonomy: Path, run: Path, baseline: Path) -> None:
    """Run the gate with two scripted models that have the names of the directories' models."""
    from rich.console import Console

    from rft_ilab.config import load_settings
    from rft_ilab.pipeline import gate
    from rft_ilab.pipeline.request import Request, Workspace
    from rft_ilab.policy.local import identity
    from rft_ilab.policy.local.lazy import LazyPolicy
    from rft_ilab.policy.scripted import ScriptedPolicy
    from rft_ilab.store import Run
    from rft_ilab.types import Policy, Prompt

    if identity.remembered_format() is None:
        identity.remember_format("float32")
    manifest = {"identity": {}, "model": str(baseline), "stages": {}}
    Run.create(run, manifest)
    request = Request(taxonomy=taxonomy, run=run, settings=load_settings(taxonomy))
    right = {t.id: t.reference for e in Workspace(request).environments for t in e.tasks}

    def scripted(directory: Path) -> Policy:
        name = "candidate" if directory == run / "model" else "baseline"

        def said(prompt: Prompt, index: int) -> str:
            chance = random.Random(f"{name}/{prompt.task_id}/{index}")
            # What both say alike they say of most tasks; a tenth is drawn by each for itself.
            same = random.Random(prompt.task_id).random() < RIGHT["baseline"]
            hit = same if chance.random() < 0.9 else chance.random() < RIGHT[name]
            if hit and (name == "candidate" or len(prompt.messages) > 2 or chance.random() < 0.8):
                return right[prompt.task_id]
            return f"no idea {chance.randrange(10**6)}"

        policy = ScriptedPolicy(said, name)
        policy.id = LazyPolicy(directory).id
        return policy

    gate.local_policy = scripted
    gate.regress(request, console=Console(stderr=True, quiet=True))


def error_rates(repetitions: int) -> tuple[float, float]:
    """How often a watched skill that lost its margin passes, among nine, and any of nine unchanged ones fails.

    Made-up right and wrong answers to 200 tasks in pairs that move together (:mod:`rft_ilab.regress.simulation`).
    """
    from rft_ilab.config import GateSettings
    from rft_ilab.regress.simulation import World, family_rates

    settings, same = GateSettings(), World(tasks=200, size=2, icc=1.0)
    lost = dataclasses.replace(same, delta=-settings.margin)
    harmed = family_rates([lost, *[same] * 8], settings, repetitions)
    return harmed.any_false_pass, family_rates([same] * 9, settings, repetitions).any_fail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skills", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=1000, help="test tasks a skill (default 1000)")
    parser.add_argument("--samples", type=int, default=8, help="random answers a task (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each command is timed (default 5)")
    parser.add_argument("--repetitions", type=int, default=400, help="made-up pairs of models (default 400)")
    parser.add_argument("--skip-simulation", action="store_true")
    parser.add_argument("--fill", nargs=3, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill(*options.fill)
        return 0
    from rft_ilab.config import GateSettings

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as name:
        shipped, large = Bench(Path(name) / "shipped"), Bench(Path(name) / "large")
        taxonomy = large.root / "taxonomy"
        write_taxonomy(taxonomy, options.skills, options.tasks, options.samples)
        for bench, tree in ((shipped, ROOT / "taxonomy"), (large, taxonomy)):
            bench.prepare(tree)
            started = time.perf_counter()
            bench.fill(tree)
            print(f"{bench.root.name}: answered in {time.perf_counter() - started:.1f} s", flush=True)
        makefile = shipped.root / "Makefile"
        makefile.write_text("regress:\n\t@" + " ".join(shipped.ilab("model", "regress", "--run", RUN)) + " || true\n")
        warm = ["make", "-s", "-C", str(shipped.root), "regress"]
        found["warm_regress_s"], found["warm_regress_cpu_s"], _ = shipped.timed(warm, options.rounds)
        gate = large.ilab("model", "regress", "--run", RUN)
        found["gate_s"], found["gate_cpu_s"], found["peak_rss_mb"] = large.timed(gate, options.rounds)
        rollouts = json.loads((large.run / "manifest.json").read_text())["stages"]["regate"]["rollouts"]
        print(f"{options.skills} skills x {options.tasks} tasks x {options.samples} samples: {rollouts} answers judged")
    if not options.skip_simulation:
        found["false_pass"], found["false_fail"] = error_rates(options.repetitions)
    found = {name: round(value, 4) for name, value in found.items()} | {"alpha": GateSettings().alpha}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
