"""A GRPO step here against TRL's: processor seconds, wall time, memory, in interleaved runs of the same work.

    make bench-rl                       # makes an environment for TRL in .rft/trl, once; then hours, nearly all TRL's
    make bench-rl ARGS='--only dates --steps 3'

Same prompts, LoRA (r 16 on all linear layers), group size, prompts a step, token cap, temperature and threads; each
side runs in a process of its own, a step of one, then of the other. ``ratio_equal_dtype``: both in fp32, on shipped
skills with their demonstrations in the prompt. ``ratio_default``: TRL as it comes (bf16), this engine as it comes (the
format that is faster here). ``ratio_long_answers``: short prompts, answers of up to 128 tokens, where a trie helps
least. Ratios are of medians of processor seconds, the least over the skills. ``decode_share`` and ``train_share``:
operations a second that the work cannot do without, against the best that this machine does in a matrix product of the
model's shape. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SKILLS = ("dates/iso_date", "retail/order_json")
BATCH, GROUP, LONG = 8, 8, 128
TOPICS = ("a lighthouse", "the first snow", "an old bicycle", "two sisters", "a lost letter", "the night train",
          "a market in spring", "the clockmaker", "a stray dog", "the harbour", "a broken radio", "the orchard",
          "an empty house", "the river", "a violin", "the lighthouse keeper")  # fmt: skip


# -- this side ------------------------------------------------------------------------------------------------


def ours(arguments: argparse.Namespace) -> None:
    """Answer every line on stdin with one step, as the peer does."""
    import torch

    torch.set_num_threads(arguments.threads)
    from rft_ilab.config import SkillSettings, TrainSettings
    from rft_ilab.policy.local.model import load_model
    from rft_ilab.rl import grpo
    from rft_ilab.rl.engine import Engine
    from rft_ilab.rollouts import Environment
    from rft_ilab.types import Grade, Message, Rollout, Skill, Task

    class Reward:
        """The peer's reward, as a grader."""

        digest: str = arguments.reward

        def grade(self, pairs: Sequence[tuple[Task, Rollout]]) -> list[Grade]:
            return [self._one(task, rollout) for task, rollout in pairs]

        def _one(self, task: Task, rollout: Rollout) -> Grade:
            text = rollout.completion
            score = text.count("e") / max(1, len(text))
            if arguments.reward == "equal":
                score = float(text.strip() == task.reference)
            return Grade(
                task_id=task.id, index=rollout.index, policy_id=rollout.policy_id, score=score, passed=score >= 1.0
            )

    rows = [json.loads(line) for line in arguments.prompts.read_text().splitlines()]
    tasks = [
        Task(
            id=f"t{i}", skill="bench", messages=tuple(Message(m["role"], m["content"]) for m in row["prompt"]),
            reference=row["reference"], item={}, group=f"g{i}", split="train",
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip
    skill = Skill(name="bench", directory=Path(), description="", seeds=(), grader={}, grader_digest="")
    settings = TrainSettings(
        prompts=BATCH, group_size=GROUP, steps=1000, warmup_steps=0, guidance=0.0, balanced=0.0, learning_rate=2e-4
    )
    # The peer samples as many rollouts as it was told to and no more.
    grpo.REFILLS = 0
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(arguments.dtype)
    engine = Engine(load_model(Path(arguments.model), dtype), settings)
    environment = Environment.of(skill, tasks, Reward(), SkillSettings(max_tokens=arguments.max_tokens))
    progress = grpo.Progress()
    decoded = count_decoding(engine)
    limit = matmul_limit(engine.loaded.model.dtype)
    with tempfile.TemporaryDirectory() as log:
        while True:
            print(json.dumps({"ready": progress.step, "dtype": str(engine.loaded.model.dtype)}), flush=True)
            if not sys.stdin.readline().strip():
                return
            wall, cpu = time.monotonic(), time.process_time()
            row = grpo.grpo_step(engine, [environment], settings, progress, Path(log))
            spent = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            # Wall time of the two parts, in the share that the process had of a processor.
            running = spent["cpu_s"] / spent["wall_s"]
            spent["decode_share"] = decoded.pop() / (row["sample_s"] * running) / limit
            if "nodes" in row:
                # Forward, and backward to the inputs: the weights are frozen. The vocabulary head where a token is
                # predicted. What LoRA costs is left out of the work that counts, not out of the time.
                work = 2 * (position_flop(engine.sampler.model) * row["nodes"] + head_flop(engine) * row["predictions"])
                spent["train_share"] = work / (row["train_s"] * running) / limit
            print(json.dumps(spent | {"reward": row["reward"], "peak_rss_mb": peak, "row": row}), flush=True)


def position_flop(model: Any) -> float:
    """Floating-point operations of one position in the linear layers of the decoder."""
    linear = ("Linear", "LoraLinear")
    return 2.0 * sum(m.weight.numel() for m in model.get_decoder().modules() if type(m).__name__ in linear)


def head_flop(engine: Any) -> float:
    return 2.0 * float(engine.sampler.model.get_output_embeddings().weight.numel())


def count_decoding(engine: Any) -> list[float]:
    """A list to which every step adds the operations that its sampling cannot do without.

    Each distinct prefix once, and the vocabulary head where a token is drawn.
    """
    from rft_ilab.policy.local.sampler import LocalPolicy
    from rft_ilab.policy.local.trie import build_trie

    per_position = position_flop(engine.sampler.model)
    head = head_flop(engine)
    done: list[float] = []
    sample = LocalPolicy.sample

    def counted(self: Any, prompts: Any, n: int, sampling: Any) -> Any:
        rollouts = list(sample(self, prompts, n, sampling))
        encoded = {p.task_id: tuple(self.loaded.encode_prompt(p.messages)) for p in prompts}
        said = [(r.task_id, tuple(r.token_ids or ())) for r in rollouts]
        trie = build_trie([encoded[task] + ids[:-1] for task, ids in said])
        drawn = {(task, ids[:k]) for task, ids in said for k in range(len(ids))}
        done.append(per_position * len(trie) + head * len(drawn))
        return iter(rollouts)

    LocalPolicy.sample = counted  # type: ignore[method-assign]
    return done


def matmul_limit(dtype: Any) -> float:
    """Operations a second of a large matrix product of the model's shape, one thread's best of 20."""
    import torch

    x, w = torch.randn(512, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    best = 0.0
    for _ in range(20):
        started = time.process_time()
        for _ in range(10):
            torch.nn.functional.linear(x, w)
        best = max(best, 10 * 2.0 * x.numel() * w.shape[0] / (time.process_time() - started))
    return best


# -- both sides -----------------------------------------------------------------------------------------------


class Side:
    """A process that does a step when it is told to."""

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        self.name = name
        self.steps: list[dict[str, Any]] = []
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
        if counted:
            self.steps.append(row)
        self._read()  # ready for the next

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def median(self, key: str) -> float:
        return statistics.median(row[key] for row in self.steps if key in row)


def compare(sides: Sequence[Side], steps: int, warmup: int) -> None:
    """``warmup`` uncounted steps each, then ``steps`` of each in turn."""
    try:
        for counted in (*[False] * warmup, *[True] * steps):
            for side in sides:
                side.step(counted=counted)
    finally:
        for side in sides:
            side.close()


def few_shot(skill_name: str, taxonomy: Path, count: int) -> tuple[list[dict[str, Any]], int]:
    """Training tasks of a shipped skill with its demonstrations in the prompt; and its token cap."""
    from rft_ilab.config import load_settings
    from rft_ilab.skills.tasks import build_prompt, load_tasks
    from rft_ilab.skills.tree import load_skill

    settings = load_settings(taxonomy)
    skill, own = load_skill(taxonomy, skill_name, settings), settings.skill(skill_name)
    tasks = [task for task in load_tasks(skill) if task.split == "train"][:count]
    rows = [
        {
            "prompt": [turn.as_dict() for turn in build_prompt(skill, task, own.demonstrations).messages],
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
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1, help="steps of each side that are not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--taxonomy", type=Path, default=ROOT / "taxonomy")
    parser.add_argument("--only", help="one of the comparisons, by the start of its name")
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--max-tokens", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="", help=argparse.SUPPRESS)
    parser.add_argument("--reward", default="equal", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        ours(arguments)
        return
    from rft_ilab.policy.local.embedded import embedded_model

    model = str(embedded_model())
    sets = {name: (*few_shot(name, arguments.taxonomy, 64), "equal") for name in SKILLS}
    sets["long answers"] = (*long_answers(), "letters")
    plan = [(f"{name}, equal", name, "float32", "float32") for name in sets]
    plan += [(f"{name}, default", name, "bfloat16", "") for name in sets]
    ratios: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {"decode_share": [], "train_share": []}
    peak = 0.0
    print(f"{BATCH} prompts x {GROUP} rollouts, {arguments.threads} thread(s), {arguments.steps} interleaved steps")
    for title, name, theirs, mine in plan:
        if arguments.only and not title.startswith(arguments.only):
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
            compare(sides, arguments.steps, arguments.warmup)
        for side in sides:
            cpu = [row["cpu_s"] for row in side.steps]
            print(
                f"{title:<28} {side.name:<5} cpu {statistics.median(cpu):7.2f} s ({min(cpu):.2f} to {max(cpu):.2f})"
                f"  wall {side.median('wall_s'):7.2f} s  {side.median('peak_rss_mb'):6,.0f} MB"
                f"  reward {side.steps[0]['reward']:.3f} -> {side.steps[-1]['reward']:.3f}"
            )
        peak = max(peak, sides[0].median("peak_rss_mb"))
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
    print(json.dumps(last | {"peak_rss_mb": round(peak)}))


if __name__ == "__main__":
    main()
