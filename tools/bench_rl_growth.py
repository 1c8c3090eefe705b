"""How a GRPO step's processor time grows with group size, prompts and answers."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench_rl_ours import BATCH, GROUP, Bench, Rows

GROUPS = (4, 8, 16, 32)
SHOWN = (0, 4, 8)
OWN = (100, 200, 400)
ANSWERS = (16, 32, 64, 128)
# Of every answer where its length is not what varies.
USUAL = 12
WORDS = ("river", "house", "stone", "light", "paper", "green", "window", "table", "seven", "garden", "letter", "north",
         "music", "yellow", "train", "open")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One line of the table. ``size`` is what varies: a column of what a step returns, or the group size."""

    series: str
    size: str
    rows: Rows
    answer: int = USUAL
    group: int = GROUP


def cases(loaded: Any, few_shot: Any, short: Rows) -> Iterator[Case]:
    """``few_shot(n)`` has the prompts of a skill with ``n`` demonstrations; ``short`` are short prompts."""
    for group in GROUPS:
        yield Case("group size", "group", few_shot(max(SHOWN)), group=group)
    for count in SHOWN:
        yield Case("shared prompt tokens", "prompt_tokens", few_shot(count))
    for tokens in OWN:
        yield Case("own prompt tokens", "prompt_tokens", unshared(loaded, tokens))
    for tokens in ANSWERS:
        yield Case("answer tokens", "answer_tokens", short, answer=tokens)


def unshared(loaded: Any, tokens: int) -> Rows:
    """Prompts of ``tokens`` tokens, or a few more, that have the chat's frame in common and no more."""
    from rft_ilab.types import Message

    rows = []
    for i in range(BATCH):
        rng = random.Random(i)
        text = f"{i + 1}."
        while len(loaded.encode_prompt((Message("user", text),))) < tokens:
            text += " " + rng.choice(WORDS)
        rows.append({"prompt": [{"role": "user", "content": text}], "reference": ""})
    return rows


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """b of seconds = a x size^b, fitted to the logarithms by least squares.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    logs = [math.log(x) for x in sizes], [math.log(y) for y in seconds]
    return statistics.linear_regression(*logs).slope


def growth(model: Path, few_shot: Any, short: Rows, steps: int, only: str) -> dict[str, float]:
    """Print the table; returns the exponents of whole steps by series. One thread, the format that is faster here."""
    from rft_ilab.policy.local.model import load_model

    print(f"{BATCH} prompts; of {steps} steps the one that took least; processor seconds")
    print(f"{'':<21}{'size':>6} {'prompt':>7} {'answer':>7} {'trie':>7} {'padded':>8} {'decode s':>9} {'train s':>9}")
    found: dict[str, list[dict[str, float]]] = {}
    for case in cases(load_model(model), few_shot, short):
        if only and not case.series.startswith(only):
            continue
        # Loaded anew, since an adapter stays on its model.
        bench = Bench(load_model(model), case.rows, case.answer, "halves", group=case.group, exact=True)
        best = min((bench.step() for _ in range(steps)), key=lambda spent: float(spent["cpu_s"]))
        best |= {"group": case.group, "nodes": best["row"]["nodes"]}
        found.setdefault(case.series, []).append(best)
        print(
            f"{case.series:<21}{best[case.size]:>6.0f} {best['prompt_tokens']:>7.0f} {best['answer_tokens']:>7.0f} "
            f"{best['nodes']:>7,} {best['padded_tokens']:>8,} {best['decode_s']:>9.2f} {best['train_s']:>9.2f}",
            flush=True,
        )
    of_size = {case.series: case.size for case in cases(load_model(model), few_shot, short)}
    print(f"\nexponents:{'decode':>18} {'train':>6} {'both':>6} {'trie':>6} {'padded':>7}")
    whole: dict[str, float] = {}
    for series, rows in found.items():
        sizes = [row[of_size[series]] for row in rows]
        b = [
            exponent(sizes, [row[key] for row in rows])
            for key in ("decode_s", "train_s", "cpu_s", "nodes", "padded_tokens")
        ]
        whole[series] = round(b[2], 2)
        print(f"{series:<21}{b[0]:>7.2f} {b[1]:>6.2f} {b[2]:>6.2f} {b[3]:>6.2f} {b[4]:>7.2f}")
    return whole
