"""A GRPO step here against TRL's: processor seconds, wall time, memory, in interleaved runs of the same work.

    make bench-rl                       # makes an environment for TRL in .rft/trl, once; then hours, nearly all TRL's
    make bench-rl ARGS='--only dates --steps 3'
    make bench-rl ARGS='--plot reward.svg'       # also draws reward against processor time
    make bench-rl-alone ARGS=--growth            # without TRL: how a step grows with groups, prompts and answers
    make bench-rl-alone ARGS=--large             # without TRL: one step of a model with 1.24 billion parameters
    make bench-rl-alone ARGS=--overlap           # without TRL: a second core within training, or beside it
    make bench-rl-alone ARGS=--gpu               # without TRL: by the wall clock, on a CUDA GPU

Same prompts, LoRA (r 16 on all linear layers), group size, prompts a step, token cap, temperature and threads; each
side runs in a process of its own, a step of one, then of the other. ``ratio_equal_dtype``: both in fp32, on shipped
skills with their demonstrations in the prompt. ``ratio_default``: TRL as it comes (bf16), this engine as it comes (the
format that is faster here). ``ratio_long_answers``: short prompts, answers of up to 128 tokens, where a trie helps
least. Ratios are of medians of processor seconds, the least over the skills. ``decode_share`` and ``train_share``:
operations a second that the work cannot do without, against the best that this machine does in a matrix product of the
model's shape. ``peak_rss_mb``: this side's, the median over the comparisons. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# As a script has only its own directory on the path.
sys.path.insert(0, str(ROOT))
from tools.bench_rl_ours import BATCH, GROUP, answer_lines  # noqa: E402

SKILLS = ("dates/iso_date", "retail/order_json")
LONG = 128
TOPICS = ("a lighthouse", "the first snow", "an old bicycle", "two sisters", "a lost letter", "the night train",
          "a market in spring", "the clockmaker", "a stray dog", "the harbour", "a broken radio", "the orchard",
          "an empty house", "the river", "a violin", "the lighthouse keeper")  # fmt: skip


# -- both sides -----------------------------------------------------------------------------------------------


class Side:
    """A process that does a step when it is told to."""

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        self.name = name
        self.steps: list[dict[str, Any]] = []
        # With those that are not counted: they train as well.
        self.every: list[dict[str, Any]] = []
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
        self._process = subprocess.Popen(
            command, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                row: dict[str, Any] = json.loads(line)
                return row
        raise SystemExit(f"{self.name} ended; run it by hand: {self._process.args!r}")

    def step(self, *, counted: bool) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        row = self._read()
        self.every.append(row)
        if counted:
            self.steps.append(row)
        self._read()  # ready for the next

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def median(self, key: str) -> float:
        """Over the counted steps that have it; NaN if none has."""
        return statistics.median([row[key] for row in self.steps if key in row] or [math.nan])


def compare(sides: Sequence[Side], steps: int, warmup: int) -> None:
    """``warmup`` uncounted steps each, then ``steps`` of each in turn."""
    try:
        for counted in (*[False] * warmup, *[True] * steps):
            for side in sides:
                side.step(counted=counted)
    finally:
        for side in sides:
            side.close()


def few_shot(
    skill_name: str, taxonomy: Path, count: int, demonstrations: int | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Training tasks of a shipped skill with its (or so many) demonstrations in the prompt; and its token cap."""
    from rft_ilab.config import load_settings
    from rft_ilab.skills.tasks import build_prompt, load_tasks
    from rft_ilab.skills.tree import load_skill

    settings = load_settings(taxonomy)
    skill, own = load_skill(taxonomy, skill_name, settings), settings.skill(skill_name)
    tasks = [task for task in load_tasks(skill) if task.split == "train"][:count]
    shown = own.demonstrations if demonstrations is None else demonstrations
    rows = [
        {
            "prompt": [turn.as_dict() for turn in build_prompt(skill, task, shown).messages],
            "reference": task.reference,
        }
        for task in tasks
    ]
    return rows, own.max_tokens


def long_answers() -> tuple[list[dict[str, Any]], int]:
    asked = [[{"role": "user", "content": f"Write a story about {topic}."}] for topic in TOPICS]
    return [{"prompt": prompt, "reference": ""} for prompt in asked], LONG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python of an environment with TRL")
    parser.add_argument("--steps", type=int, help="of each side [5; of --growth 2]")
    parser.add_argument("--warmup", type=int, default=1, help="steps of each side that are not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--taxonomy", type=Path, default=ROOT / "taxonomy")
    parser.add_argument("--only", default="", help="of the comparisons, or lines of --growth, those that begin so")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="reward against processor time; and FILE.json")
    parser.add_argument("--growth", action="store_true", help="how a step's cost grows, without TRL")
    parser.add_argument("--large", action="store_true", help="a step of 1.24 billion parameters, without TRL")
    parser.add_argument(
        "--overlap", action="store_true", help="one thread, two, and sampling beside training, without TRL"
    )
    parser.add_argument("--gpu", action="store_true", help="wall clock on a CUDA GPU, without TRL")
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--async-steps", type=int, choices=(0, 1), default=0, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--max-tokens", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="", help=argparse.SUPPRESS)
    parser.add_argument("--reward", default="equal", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        alone(arguments)
    elif arguments.overlap:
        print(json.dumps(overlap(arguments)))
    elif arguments.growth or arguments.large or arguments.gpu:
        from rft_ilab.policy.local.embedded import embedded_model

        arguments.model = embedded_model()
        alone(arguments)
    else:
        print(json.dumps(both(arguments)))


def alone(arguments: argparse.Namespace) -> None:
    """Whatever needs torch: in a process that was told how many threads it has."""
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.large:
        from tools.bench_rl_large import large

        large(arguments.model, few_shot(SKILLS[0], arguments.taxonomy, BATCH)[0])
    elif arguments.gpu:
        from tools.bench_rl_gpu import gpu

        sets = {name: few_shot(name, arguments.taxonomy, BATCH) for name in SKILLS}
        print(json.dumps(gpu(arguments.model, sets | {"long answers": long_answers()}, arguments.steps or 5)))
    elif arguments.growth:
        from tools.bench_rl_growth import growth

        def shown(count: int) -> list[dict[str, Any]]:
            return few_shot(SKILLS[0], arguments.taxonomy, BATCH, count)[0]

        short = long_answers()[0][:BATCH]
        print(json.dumps(growth(arguments.model, shown, short, arguments.steps or 2, arguments.only)))
    else:
        given = (arguments.model, arguments.prompts, arguments.max_tokens, arguments.reward, arguments.dtype)
        answer_lines(*given, arguments.async_steps)


def overlap(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of wall clock of a step in which all groups have signal, in three ways by turns; the last line."""
    from rft_ilab.policy.local.embedded import embedded_model

    model, last = str(embedded_model()), {}
    ways = {"one thread": (1, 0), "two threads": (2, 0), "a thread each": (2, 1)}
    for skill in SKILLS:
        if not skill.startswith(arguments.only):
            continue
        rows, cap = few_shot(skill, arguments.taxonomy, 64)
        with tempfile.TemporaryDirectory() as directory:
            prompts = Path(directory) / "prompts.jsonl"
            prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
            common = ["--model", model, "--prompts", str(prompts), "--max-tokens", str(cap), "--reward", "halves"]
            sides = [
                Side(
                    way,
                    [sys.executable, __file__, "--ours", *common, "--threads", str(n), "--async-steps", str(steps)],
                    n,
                )
                for way, (n, steps) in ways.items()
            ]
            compare(sides, arguments.steps or 5, arguments.warmup)
        for side in sides:
            wall, cpu = side.median("wall_s"), side.median("cpu_s")
            print(f"{skill:<20} {side.name:<14} wall {wall:6.2f} s  cpu {cpu:6.2f} s", flush=True)
            last[f"{skill.rsplit('/', 1)[-1]}, {side.name}"] = round(wall, 2)
    return last


def both(arguments: argparse.Namespace) -> dict[str, float]:
    """All comparisons, printed; returns the last line."""
    from rft_ilab.policy.local.embedded import embedded_model

    model, steps = str(embedded_model()), arguments.steps or 5
    sets = {name: (*few_shot(name, arguments.taxonomy, 64), "equal") for name in SKILLS}
    sets["long answers"] = (*long_answers(), "letters")
    plan = [(f"{name}, equal", name, "float32", "float32") for name in sets]
    plan += [(f"{name}, default", name, "bfloat16", "") for name in sets]
    ratios: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {"decode_share": [], "train_share": []}
    peaks: list[float] = []
    drawn: dict[str, dict[str, list[dict[str, Any]]]] = {}
    print(f"{BATCH} prompts x {GROUP} rollouts, {arguments.threads} thread(s), {steps} interleaved steps")
    for title, name, theirs, mine in plan:
        if not title.startswith(arguments.only):
            continue
        rows, cap, reward = sets[name]
        with tempfile.TemporaryDirectory() as directory:
            prompts = Path(directory) / "prompts.jsonl"
            prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
            common = ["--model", model, "--prompts", str(prompts), "--max-tokens", str(cap), "--reward", reward]
            common += ["--threads", str(arguments.threads)]
            sides = [Side("ours", [sys.executable, __file__, "--ours", *common, "--dtype", mine], arguments.threads)]
            if arguments.peer:
                peer = [arguments.peer, str(ROOT / "tools" / "bench_rl_peer.py"), *common, "--dtype", theirs]
                sides.append(Side("TRL", [*peer, "--batch", str(BATCH), "--group", str(GROUP)], arguments.threads))
            compare(sides, steps, arguments.warmup)
        for side in sides:
            cpu = [row["cpu_s"] for row in side.steps]
            print(
                f"{title:<28} {side.name:<5} cpu {statistics.median(cpu):7.2f} s ({min(cpu):.2f} to {max(cpu):.2f})"
                f"  wall {side.median('wall_s'):7.2f} s  {side.median('peak_rss_mb'):6,.0f} MB"
                f"  reward {side.steps[0]['reward']:.3f} -> {side.steps[-1]['reward']:.3f}"
            )
        drawn[title] = {side.name: side.every for side in sides}
        if arguments.plot:  # after every comparison: the next one may take an hour
            from tools.bench_rl_plot import write_plot

            write_plot(arguments.plot, drawn)
        peaks.append(sides[0].median("peak_rss_mb"))
        for kind, found in shares.items():
            found.append(sides[0].median(kind))
            print(f"{title:<28} {kind} of the measured matmul limit {found[-1]:.2f}")
        if len(sides) == 2:
            ratio = sides[1].median("cpu_s") / sides[0].median("cpu_s")
            kind = "ratio_equal_dtype" if mine else "ratio_default"
            if name == "long answers":
                kind = "ratio_long_answers" if mine else "ratio_long_answers_default"
            ratios.setdefault(kind, []).append(ratio)
            print(f"{title:<28} ratio {ratio:.1f}", flush=True)
    last: dict[str, float] = {kind: round(min(found), 1) for kind, found in ratios.items()}
    last |= {f"{kind}_of_limit": round(min(found), 2) for kind, found in shares.items()}
    return last | {"peak_rss_mb": round(statistics.median(peaks))}


if __name__ == "__main__":
    main()
