"""What looking early costs and saves: error rates under optional stopping, and tasks used, on made-up outcomes.

    python tools/simulate_sequential.py             # the tables of docs/statistics.md (about five minutes)
    python tools/simulate_sequential.py --runs 200  # quickly

Every number comes from the rules that are shipped (``paired_difference``, ``levels``); random numbers are seeded. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from rft_ilab.regress.power import Assumption, tasks_to_gain, tasks_to_pass
from rft_ilab.regress.sequential import batches, crossing, levels, schedule
from rft_ilab.regress.statistics import Difference, paired_difference, quantile

ALPHA, MARGIN, MIN_GAIN, BATCH = 0.05, 0.10, 0.05, 32
LEVEL = ALPHA / 2.0
NO_INTERVAL = 1e-300  # too small for some hundred groups: no interval is computed, and p-values know no alpha
SHAPES = {"O'Brien-Fleming": 0.0, "shipped": 0.25, "Pocock": 0.5}
STAKES = (np.arange(16) + 0.5) / 16  # of the largest bet that cannot lose more than everything

Moves = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class World:
    """``sizes_G``: tasks of each group, in the order of drawing. Of the tasks ``churn`` / 2 move up and as many down,
    and ``delta`` one way besides; with chance ``alike`` all tasks of a group have the same fate."""

    name: str
    sizes_G: tuple[int, ...]
    delta: float = 0.0
    churn: float = 0.10
    alike: float = 0.0

    @property
    def tasks(self) -> int:
        return sum(self.sizes_G)

    def groups(self) -> list[str]:
        return [str(group) for group, size in enumerate(self.sizes_G) for _ in range(size)]

    def moves(self, runs: int, seed: int) -> npt.NDArray[np.float64]:
        """(runs, tasks): -1, 0 or 1."""
        rng = np.random.default_rng([seed, self.tasks, round(1000 * (self.delta + 1)), round(1000 * self.churn)])
        group_N = np.repeat(np.arange(len(self.sizes_G)), self.sizes_G)
        own, shared = rng.random((runs, self.tasks)), rng.random((runs, len(self.sizes_G)))
        fate = np.where((rng.random(shared.shape) < self.alike)[:, group_N], shared[:, group_N], own)
        down, up = (max(sign * self.delta, 0.0) + self.churn / 2.0 for sign in (-1.0, 1.0))
        return np.where(fate < down, -1.0, np.where(fate > 1.0 - up, 1.0, 0.0))

    def looks(self, batch: int = BATCH) -> tuple[list[int], tuple[float, ...]]:
        """Tasks seen after each batch, and their shares. Groups keep their order: outcomes are random already."""
        ends = np.cumsum([len(part) for part in batches(self.groups(), batch, [])]).tolist()
        seen = np.cumsum(self.sizes_G)
        whole = sorted({int(seen[np.searchsorted(seen, end)]) for end in ends})
        return whole, schedule(np.diff([0, *whole]).tolist())


@cache
def _singles(n: int, better: int, worse: int) -> Difference:
    before = [0.0] * better + [1.0] * (n - better)
    after = [1.0] * better + [0.0] * worse + [1.0] * (n - better - worse)
    return paired_difference(before, after, range(n), ALPHA)


def difference(world: World, moves_N: Moves, groups_N: Sequence[str]) -> Difference:
    """Of the first tasks of one repetition, as the gate computes it."""
    n = len(moves_N)
    if max(world.sizes_G) == 1:
        return _singles(n, int((moves_N > 0).sum()), int((moves_N < 0).sum()))
    return paired_difference((moves_N < 0).astype(float), (moves_N > 0).astype(float), groups_N[:n], NO_INTERVAL)


# ---- error rates ----


def claim_rates(world: World, null: float, sign: int, runs: int) -> dict[str, float]:
    """Share of repetitions in which ``delta > null`` (``sign`` 1; -1: ``<``) is claimed at any look, by rule."""
    ends, shares = world.looks()
    groups, moves = world.groups(), world.moves(runs, seed=1)
    p_RK = np.array(
        [
            [
                d.p_superior(null) if sign > 0 else d.p_inferior(null)
                for d in (difference(world, row[:end], groups) for end in ends)
            ]
            for row in moves
        ]
    )
    found = {"no look": (p_RK[:, -1] <= LEVEL).mean(), "naive": (p_RK <= LEVEL).any(1).mean()}
    for name, shape in SHAPES.items():
        found[name] = (p_RK <= np.array(levels(shares, LEVEL, shape))).any(1).mean()
    found["bets"] = (wealth(world, sign * moves, sign * null) >= 1.0 / LEVEL).any(1).mean()
    return {name: float(rate) for name, rate in found.items()}


def wealth(world: World, moves: npt.NDArray[np.float64], null: float) -> npt.NDArray[np.float64]:
    """(runs, groups): an e-process against delta <= ``null``, after each group.

    Bets on the groups' sums less what the null expects, with 16 stakes from nearly nothing to nearly all and a 16th of
    the capital on each (Waudby-Smith and Ramdas, JRSS-B 86:1, 2024). It ever reaches 1 / level with chance level.
    """
    sizes_G = np.array(world.sizes_G, dtype=float)
    sums = np.add.reduceat(moves, np.cumsum([0, *world.sizes_G[:-1]]), axis=1)
    gains = (sums - null * sizes_G) / (sizes_G.max() * (1.0 + null))
    return np.mean([np.cumprod(1.0 + stake * gains, axis=1) for stake in STAKES], axis=0)


def error_worlds() -> list[World]:
    mixed = tuple(np.random.default_rng(5).permutation([2] * 114 + [1] * 19 + [9] * 3 + [18, 8]).tolist())
    singles = [World(name=f"{n} tasks", sizes_G=(1,) * n) for n in (60, 150, 300, 1000)]
    grouped = [World(name=f"50 groups of 6, {a:.0%} alike", sizes_G=(6,) * 50, alike=a) for a in (0.0, 0.3, 1.0)]
    return [*singles, *grouped, World(name="138 groups of 1 to 18, all alike", sizes_G=mixed, alike=1.0)]


def error_table(runs: int) -> tuple[list[str], float, float]:
    """A line a world and claim: the highest rate over 2, 10 and 30 % of tasks that move besides."""
    rules = ["no look", "naive", *SHAPES, "bets"]
    lines = [f"| tasks | claim | looks | {' | '.join(rules)} |", "|---|---|--:|" + "--:|" * len(rules)]
    worst = {"PASS": 0.0, "FAIL": 0.0}
    for world in error_worlds():
        for name, delta, sign in (("PASS", -MARGIN, 1), ("FAIL", 0.0, -1)):
            worlds = [replace(world, delta=delta, churn=churn) for churn in (0.02, 0.10, 0.30)]
            found = [claim_rates(there, delta, sign, runs) for there in worlds]
            rates = {rule: max(rates[rule] for rates in found) for rule in rules}
            worst[name] = max(worst[name], rates["shipped"])
            cells = " | ".join(f"{100 * rates[rule]:.1f}" for rule in rules)
            lines.append(f"| {world.name} | {name} | {len(world.looks()[0])} | {cells} |")
    return lines, worst["PASS"], worst["FAIL"]


# ---- tasks used ----


@dataclass(frozen=True, kw_only=True)
class Case:
    """``planned``: the world (churn, delta) for which the number of tasks was planned; ``truth``: what came."""

    name: str
    target: bool
    planned: tuple[float, float]
    truth: tuple[float, float]


CASES = (
    Case(name="watched, no change", target=False, planned=(0.10, 0.0), truth=(0.10, 0.0)),
    Case(name="watched, a loss of twice the margin", target=False, planned=(0.10, 0.0), truth=(0.10, -0.20)),
    Case(name="target, +20 points, as planned", target=True, planned=(0.10, 0.20), truth=(0.10, 0.20)),
    Case(name="target, +20 points, planned for +10", target=True, planned=(0.10, 0.10), truth=(0.10, 0.20)),
)
TRUTHS = (
    ("watched, the same answers throughout", False, 0.0, 0.0),
    ("watched, no change, 10 % of the answers moved", False, 0.10, 0.0),
    ("watched, a loss of the margin", False, 0.10, -0.10),
    ("watched, a loss of twice the margin", False, 0.10, -0.20),
    ("target, no gain", True, 0.10, 0.0),
    ("target, +20 points", True, 0.10, 0.20),
    ("target, +50 points", True, 0.10, 0.50),
)
GROUPS = ((1, 0.0), (6, 0.3))


def decided(d: Difference, target: bool, level: float = LEVEL) -> str:
    """The gate's rule for one comparison. ``level``: of this look (the same as ``Look.p`` against LEVEL, but quick)."""
    if target:
        if d.p_inferior(MIN_GAIN) <= level:
            return "FAIL"
        return "PASS" if d.p_superior(0.0) <= level else ""
    if d.p_inferior(-MARGIN) <= level or (d.delta <= -MARGIN and d.p_inferior(0.0) <= level):
        return "FAIL"
    return "PASS" if d.p_superior(-MARGIN) <= level else ""


def planned_tasks(case: Case, size: int, alike: float, power: float) -> int:
    """What the planner of fixed suites asks for, in whole groups."""
    churn, delta = case.planned
    assumed = Assumption(discordance=churn, icc=alike, sizes=(size,))
    n = tasks_to_gain(assumed, delta, ALPHA, power) if case.target else tasks_to_pass(assumed, MARGIN, ALPHA, power)
    assert n is not None
    return size * math.ceil(n / size)


def inflation(n: int, power: float, batch: int) -> float:
    """By how much larger the suite must be for the same power with looks, in theory."""
    shares = schedule([1] * max(round(n / batch), 1))
    bounds = [-quantile(level) * math.sqrt(share) for level, share in zip(levels(shares, LEVEL), shares, strict=True)]
    low, high = 1.0, 9.0
    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (middle, high) if sum(crossing(shares, bounds, middle)) < power else (low, middle)
    return float((high / (quantile(1.0 - LEVEL) + quantile(power))) ** 2)


def drawn(world: World, target: bool, batch: int, runs: int) -> tuple[float, float]:
    """Tasks used on average, and the share of repetitions that were decided."""
    groups, (ends, shares) = world.groups(), world.looks(batch)
    used, spoke = [], 0
    for row in world.moves(runs, seed=2):
        for end, level in zip(ends, levels(shares, LEVEL), strict=True):
            if verdict := decided(difference(world, row[:end], groups), target, level):
                break
        used.append(end)
        spoke += bool(verdict)
    return float(np.mean(used)), spoke / runs


def planned_table(runs: int) -> tuple[list[str], dict[str, float]]:
    """Against a fixed number of tasks that was planned for the same error rates and power."""
    lines = [
        "| truth | groups | power | fixed n: tasks | decided | batches of | suite | tasks used | saved | decided |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    saved = {}
    for case, (size, alike), power in product(CASES, GROUPS, (0.8, 0.9)):
        churn, delta = case.truth
        n = planned_tasks(case, size, alike, power)
        fixed = World(name="", sizes_G=(size,) * (n // size), delta=delta, churn=churn, alike=alike)
        groups = fixed.groups()
        once = sum(bool(decided(difference(fixed, row, groups), case.target)) for row in fixed.moves(runs, seed=3))
        for batch in (BATCH, BATCH // 2):
            most = math.ceil(n * inflation(n, power, batch) / size)
            used, spoke = drawn(replace(fixed, sizes_G=(size,) * most), case.target, batch, runs)
            saved[f"{case.name}; {described(size, alike)}; power {power}; batch {batch}"] = round(1.0 - used / n, 3)
            lines.append(
                f"| {case.name} | {described(size, alike)} | {power:.0%} | {n} | {once / runs:.0%} | {batch} "
                f"| {most * size} | {used:.0f} | {1.0 - used / n:.0%} | {spoke:.0%} |"
            )
    return lines, saved


def whole_table(runs: int) -> list[str]:
    """Against all tasks of a suite that is there anyway."""
    lines = ["| truth | groups | suite | tasks used | saved | decided |", "|---|---|--:|--:|--:|--:|"]
    for (name, target, churn, delta), tasks, (size, alike) in product(TRUTHS, (150, 300), GROUPS):
        world = World(name="", sizes_G=(size,) * (tasks // size), delta=delta, churn=churn, alike=alike)
        used, spoke = drawn(world, target, BATCH, runs)
        share = f"{1.0 - used / tasks:.0%}"
        lines.append(f"| {name} | {described(size, alike)} | {tasks} | {used:.0f} | {share} | {spoke:.0%} |")
    return lines


def bets_instead(runs: int) -> dict[str, dict[str, float]]:
    """Tasks used on average, and the share decided, if bets had to show "no loss of the margin" where nothing changed.

    In the suites of the second table for a power of 90 %, and in suites of 300.
    """
    found = {}
    for (size, alike), tasks in product(GROUPS, (141, 300, 534)):
        world = World(name="", sizes_G=(size,) * (tasks // size), alike=alike)
        shown = wealth(world, world.moves(runs, seed=4), -MARGIN) >= 1.0 / LEVEL
        after = np.where(shown.any(1), shown.argmax(1) + 1, shown.shape[1]) * size
        ends = np.array(world.looks()[0])  # a batch is answered as a whole
        used = float(ends[np.searchsorted(ends, after)].mean())
        found[f"{world.tasks}, {described(size, alike)}"] = {
            "used": round(used, 1),
            "decided": round(float(shown.any(1).mean()), 3),
        }
    return found


def described(size: int, alike: float) -> str:
    return f"of {size}, {alike:.0%} alike" if size > 1 else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="repetitions of every line")
    runs = parser.parse_args().runs
    errors, false_pass, false_fail = error_table(runs)
    print(f"Claims that are wrong, in % of {runs} repetitions; at most {100 * LEVEL:g} are allowed:\n")
    print("\n".join(errors), "\n", flush=True)
    planned, saved = planned_table(runs)
    print("\n".join(planned), "\n", flush=True)
    print("\n".join(whole_table(runs)), "\n")
    rates = {"false_pass": false_pass, "false_fail": false_fail, "level": LEVEL}
    print(json.dumps({**rates, "runs": runs, "saved": saved, "bets": bets_instead(runs)}))


if __name__ == "__main__":
    main()
