"""What verifying and deduplicating many candidates costs: time, memory, and how both grow.

    make bench-synth                            # a few minutes
    python tools/bench_synth.py --answers 20_000

Each size runs in a process of its own: a generator in the sandbox makes half as many tasks as there are answers (one in
ten a copy with other punctuation), they are screened against a held-out split and each other, a scripted policy
answers each twice, the grader marks all, and ledger, verified data and prompt sets are written. So ``verify_100k_s`` is
the time for 100,000 answers and more than 50,000 tasks. Prints one table; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rft_ilab.config import DataSettings, Settings, SkillSettings
from rft_ilab.grading.engine import build_grader
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import build_prompt, load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import Cache, append_jsonl
from rft_ilab.synth import ledger
from rft_ilab.synth.exports import ExportTask, export_rlvr
from rft_ilab.synth.screening import Known, entry, held_out, screen
from rft_ilab.synth.sources import from_generator
from rft_ilab.synth.verify import Sourced, verify_answers
from rft_ilab.types import Prompt

SHARES = (0.25, 0.5, 1.0)
GENERATOR = '''
import random
NAMES = "Ada Ben Cleo Dan Eve Finn Gus Hal Ida Jo Kim Leo Mia Ned Oda Pia Quin Ria Sam Tia Uma Vic Wes Yul".split()
THINGS = "apples books coins drums eggs forks gloves hats irons jars keys lamps mugs nails oars pens rings".split()
PLACES = ("at the market", "in the old harbour", "behind the station", "on the hill", "next to the mill", "at home")
VERBS = ("buys", "finds", "sells", "counts", "hides", "paints")

def tasks(seed):
    draw, last = random.Random(seed), None
    while True:
        a, b = draw.randrange(1000), draw.randrange(1000)
        text = ", and ".join(
            f"{draw.choice(NAMES)} {draw.choice(VERBS)} {n} {draw.choice(THINGS)} {draw.choice(PLACES)}" for n in (a, b)
        ) + ". How many in all?"
        row = {"messages": [{"role": "user", "content": text}], "reference": str(a + b)}
        if last and draw.random() < 0.1:
            row = {"messages": [{"role": "user", "content": last["messages"][0]["content"].upper() + "?"}],
                   "reference": last["reference"]}
        last = row
        yield row
'''
GRADER = {"type": "number", "name": "sum", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
QNA = "version: 3\ncreated_by: bench\ntask_description: Add the numbers.\nseed_examples:\n" + "".join(
    f"  - question: What is {i} and {i + 1}?\n    answer: '{2 * i + 1}'\n" for i in range(6)
)


def taxonomy(root: Path) -> Environment:
    """A skill with a generator, 200 training tasks and 2,000 held-out ones."""
    leaf = root / "compositional_skills" / "bench" / "sums"
    leaf.mkdir(parents=True)
    rng, rows = random.Random(7), []
    for i in range(2200):
        a, b = rng.randrange(1000), rng.randrange(1000)
        text = f"On day {i} there were {a} people at the fair and {b} of them went home before the rain. What is left?"
        split = "train" if i < 200 else "test"
        rows.append({"messages": [{"role": "user", "content": text}], "reference": str(a + b), "split": split})
    append_jsonl(leaf / "tasks.jsonl", ({**row, "id": f"held-{i}"} for i, row in enumerate(rows)))
    (leaf / "qna.yaml").write_text(QNA)
    (leaf / "grader.json").write_text(json.dumps(GRADER))
    (leaf / "generator.py").write_text(GENERATOR)
    (leaf / "attribution.txt").write_text("Title of work: bench\n")
    skill = load_skill(root, "bench/sums", Settings())
    return Environment.of(skill, load_tasks(skill), build_grader(skill), SkillSettings(demonstrations=4, max_tokens=16))


def one_size(answers: int) -> dict[str, float]:
    """Seconds of each part and peak memory (MiB) for that many answers."""
    with tempfile.TemporaryDirectory() as name:
        env, cache = taxonomy(Path(name)), Cache(Path(name) / "cache.sqlite")
        marks = [("start", time.monotonic())]

        def mark(part: str) -> None:
            marks.append((part, time.monotonic()))

        proposals = from_generator(env.skill, answers // 2, 1, cache)
        mark("generate")
        known = Known.with_held_out(held_out([env]), env)
        found = screen(env, proposals, known, None, samples=0, needed=0, seed=0, cache=cache)
        mark("screen")
        kept = [
            Sourced(task=one.task, source="generated", screened=one)
            for one in found
            if one.disposition == "kept" and one.task
        ]
        truth = {one.task.messages[-1].content: one.task.reference for one in kept}

        def answer(prompt: Prompt, index: int) -> str:
            text = prompt.messages[-1].content
            # One in three tasks is never answered right, one always, one now and then.
            good = (hash_of(text) + 2 * index * (hash_of(text) % 3 == 1)) % 3 != 0
            return f"The answer is {truth[text]}." if good else f"It is {index}."

        verified = verify_answers(
            env, ScriptedPolicy(answer), DataSettings(samples=2, keep_per_class=answers), kept,
            train_demonstrations=0, seed=0, cache=cache,
        )  # fmt: skip
        mark("verify")
        lines = [*(entry(env, one) for one in found if one.disposition != "kept"), *verified.ledger]
        ledger.check(lines)
        out = Path(name) / "data"
        append_jsonl(out / "ledger.jsonl", (line.as_row() for line in lines))
        append_jsonl(out / "verified.jsonl", (example.as_row() for example in verified.examples))
        export_rlvr(
            out / "rlvr",
            [
                ExportTask(
                    task=one.task, prompt=build_prompt(env.skill, one.task, 0).messages, grader=env.skill.grader,
                    grader_digest=env.skill.grader_digest, split="train", source=one.source, evidence=one.evidence,
                    pass_rate=one.passes.rate,
                )
                for one in verified.tasks
            ],
        )  # fmt: skip
        mark("write")
    counts = ledger.counts(lines, "task") + ledger.counts(lines, "answer")
    assert len(lines) - counts["reference"] == len(proposals) + 2 * len(kept)
    parts = {part: end - start for (_, start), (part, end) in itertools.pairwise(marks)}
    parts |= {"total": marks[-1][1] - marks[0][1], "answers": 2 * len(kept), "tasks": len(proposals)}
    parts |= {"duplicates": ledger.counts(lines, "task")["duplicate"], "kept": len(verified.examples)}
    return parts | {"rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def hash_of(text: str) -> int:
    return sum(map(ord, text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=112_000, help="of the largest size [default: %(default)s, of which a tenth are not drawn, their tasks being duplicates]")  # noqa: E501
    parser.add_argument("--one", action="store_true", help="this size alone, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one_size(arguments.answers)))
        return
    rows = []
    for share in SHARES:
        command = [sys.executable, __file__, "--one", "--answers", str(int(arguments.answers * share))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    columns = ("answers", "tasks", "duplicates", "kept", "generate", "screen", "verify", "write", "total", "rss_mb")
    print("  ".join(f"{name:>10}" for name in columns) + "   (seconds; MiB)")
    for row in rows:
        print("  ".join(f"{row[name]:>10,.0f}" if row[name] >= 100 else f"{row[name]:>10.1f}" for name in columns))
    last, first = rows[-1], rows[0]
    growth = (last["total"] / last["answers"]) / (first["total"] / first["answers"])
    print(f"time for an answer at the largest size, times that at the smallest: {growth:.2f}")
    print(json.dumps({
        "verify_100k_s": round(last["total"] * 100_000 / last["answers"], 1) if last["answers"] >= 100_000 else None,
        "peak_rss_mb": round(max(row["rss_mb"] for row in rows)), "growth": round(growth, 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
