"""The fixed rule on suites in which few large groups carry the weight: ``tools/simulate_gate.py --unequal``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from simulate_sequential import LEVEL, MARGIN, NO_INTERVAL, World, error_worlds  # type: ignore[import-not-found]

from rft_ilab.regress.statistics import paired_difference, quantile

CHURNS = (0.02, 0.10, 0.30)
MIXES = {
    "10 of 10, 100 of 2": [10] * 10 + [2] * 100,
    "40 of 5, 8 of 15, 400 alone": [5] * 40 + [15] * 8 + [1] * 400,
    "4 of 20, 200 alone": [20] * 4 + [1] * 200,
    "6 of 12, 150 alone": [12] * 6 + [1] * 150,
    "20 of 6, 200 alone": [6] * 20 + [1] * 200,
    "12 of 10, 300 alone": [10] * 12 + [1] * 300,
}


def worlds() -> list[World]:
    rng = np.random.default_rng(7)
    made = [World(name=name, sizes_G=tuple(rng.permutation(sizes).tolist())) for name, sizes in MIXES.items()]
    triage = next(world for world in error_worlds() if "1 to 18" in world.name)
    return [replace(triage, name="138 of 1 to 18"), *made]


def shown(world: World, null: float, sign: int, runs: int) -> npt.NDArray[np.float64]:
    """How often the claim is made, how often the interval misses the null; both again with t for equal groups."""
    groups, sizes = world.groups(), np.array(world.sizes_G, dtype=float)
    plain = quantile(1.0 - LEVEL, max(sizes.sum() ** 2 / (sizes**2).sum() - 1.0, 1.0))
    rows = []
    for moves_N in world.moves(runs, seed=11):
        before_N, after_N = (moves_N < 0).astype(float), (moves_N > 0).astype(float)
        d = paired_difference(before_N, after_N, groups, NO_INTERVAL)
        p, z = (d.p_superior(null), d.p_inferior(null))[::sign], sign * d.statistic(null)
        rows.append((p[0] <= LEVEL, min(p) <= LEVEL, z >= plain, abs(z) >= plain))
    return np.array(rows).mean(axis=0)


def unequal_groups(runs: int) -> dict[str, list[float]]:
    """Worst rates of each suite over shares of tasks that move besides; prints a table."""
    print("| groups | alike | wrong PASS | wrong FAIL | interval misses | PASS if nothing changed, 10 % moved |")
    print("|---|--:|--:|--:|--:|--:|")
    found = {}
    for world in worlds():
        for alike in (1.0, 0.3):
            there = replace(world, alike=alike)
            lost = [shown(replace(there, churn=c, delta=-MARGIN), -MARGIN, 1, runs) for c in CHURNS]
            same = [shown(replace(there, churn=c), 0.0, -1, runs) for c in CHURNS]
            passed = shown(replace(there, churn=0.10), -MARGIN, 1, runs)
            rows = [
                [max(r[i] for r in lost), max(r[i] for r in same), max(r[i + 1] for r in lost + same), passed[i]]
                for i in (0, 2)
            ]
            cells = " | ".join(f"{100 * now:.1f} % ({100 * then:.1f})" for now, then in zip(*rows, strict=True))
            print(f"| {world.name} | {alike:.0%} | {cells} |", flush=True)
            found[f"{world.name}, {alike:.0%} alike"] = [round(float(rate), 4) for rate in rows[0]]
    return found
