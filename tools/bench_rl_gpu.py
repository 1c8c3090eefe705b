"""A GRPO step on a GPU: passes of decoding recorded and replayed, against the same launched kernel by kernel."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from tools.bench_rl_ours import Bench, Rows


def gpu(model: Path, sets: dict[str, tuple[Rows, int]], steps: int) -> dict[str, float]:
    """Steps of each set of (prompts, tokens an answer) by turns; prints lines, returns medians in seconds.

    Every answer has all its tokens, and every group signal. Three steps of each that are not counted: libraries choose
    their kernels then.
    """
    import torch

    from rft_ilab.policy.local import seats
    from rft_ilab.policy.local.model import load_model
    from tools.bench_rl_large import NAME, large_model

    if not torch.cuda.is_available():
        sys.exit("no CUDA GPU on this machine")
    print(f"{torch.cuda.get_device_name()}, bfloat16, {steps} steps by turns", flush=True)

    def clock() -> float:
        torch.cuda.synchronize()
        return time.monotonic()

    cases: list[tuple[str, Any, Rows, int]] = [
        (name, lambda: load_model(model, torch.bfloat16), *given) for name, given in sets.items()
    ]
    name, given = next(iter(sets.items()))
    cases.append((f"{name}, {NAME}", lambda: large_model(model, "cuda"), *given))
    last: dict[str, float] = {}
    for title, load, rows, tokens in cases:
        benches = {
            kind: Bench(load(), rows, tokens, "halves", exact=True, clock=clock) for kind in ("recorded", "launched")
        }
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in benches}
        for i in range(3 + steps):
            for kind, bench in benches.items():
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                with mock.patch.object(seats, "suit", lambda _, kind=kind: kind == "recorded"):
                    row = bench.step()
                if i >= 3:
                    grown = torch.cuda.max_memory_allocated() - before
                    found[kind].append(row | {"grown_gb": grown / 1e9})
        for kind, steps_of in found.items():
            walls = [row["wall_s"] for row in steps_of]
            middle = {key: statistics.median(row[key] for row in steps_of) for key in ("decode_s", "train_s")}
            wall = statistics.median(walls)
            print(
                f"{title:<44} {kind}  {wall:6.2f} s ({min(walls):.2f} to {max(walls):.2f})  decode"
                f" {middle['decode_s']:.2f}  train {middle['train_s']:.2f}  {steps_of[-1]['row']['nodes']:,} nodes"
                f"  {max(row['grown_gb'] for row in steps_of):.1f} GB beside the weights",
                flush=True,
            )
            last[f"{title}, {kind}"] = round(wall, 3)
        del benches, bench
        torch.cuda.empty_cache()
    return last
