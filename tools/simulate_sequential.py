"""What looking early costs and saves: error rates under optional stopping, and tasks used, on made-up outcomes.

    python tools/simulate_sequential.py             # the tables of docs/statistics.md (about five minutes)
    python tools/simulate_sequential.py --runs 200  # quickly

Every number comes from the rules that are shipped (``paired_difference``, ``levels``, ``capital``); random numbers are
seeded. Two processes work. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from rft_ilab.regress.betting import Terms, capital
from rft_ilab.regress.power import Assumption, tasks_to_gain, tasks_to_pass
from rft_ilab.regress.sequential import batches, crossing, levels, schedule
from rft_ilab.regress.statistics import Difference, paired_difference, quantile

ALPHA, MARGIN, MIN_GAIN, BATCH = 0.05, 0.10, 0.05, 32
LEVEL = ALPHA / 2.0
NO_INTERVAL = 1e-300  # too small for some hundred groups: no interval is computed, and p-values know no alpha
SHAPES = {"O'Brien-Fleming": 0.0, "scheduled": 0.25, "Pocock": 0.5}
GOAL = -math.log(LEVEL)
EVERY_GROUP = 1  # a batch

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

    def terms(self) -> Terms:
        """Of bets on the whole suite."""
        groups = len(self.sizes_G)
        return Terms(drawn=groups, groups=groups, tasks=self.tasks, largest=max(self.sizes_G), goal=LEVEL)

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
    found["anytime"] = (evidence(world, moves, null, sign)[:, -1] >= GOAL).mean()
    return {name: float(rate) for name, rate in found.items()}


def evidence(world: World, moves: Moves, null: float, sign: int, terms: Sequence[Terms] = ()) -> Moves:
    """(runs, groups): largest capital so far of bets against delta <= ``null`` (``sign`` -1: >=), as a logarithm."""
    sizes_G = np.array(world.sizes_G, dtype=float)
    sums: Moves = np.add.reduceat(moves, np.cumsum([0, *world.sizes_G[:-1]]), axis=1)
    logs = capital(sign * sums.T, sizes_G, np.full(len(moves), sign * null), terms or [world.terms()])
    return np.maximum.accumulate(logs[1:], axis=0).T


def error_worlds() -> list[World]:
    mixed = tuple(np.random.default_rng(5).permutation([2] * 114 + [1] * 19 + [9] * 3 + [18, 8]).tolist())
    singles = [World(name=f"{n} tasks", sizes_G=(1,) * n) for n in (60, 150, 300, 1000)]
    grouped = [World(name=f"50 groups of 6, {a:.0%} alike", sizes_G=(6,) * 50, alike=a) for a in (0.0, 0.3, 1.0)]
    return [*singles, *grouped, World(name="138 groups of 1 to 18, all alike", sizes_G=mixed, alike=1.0)]


def error_table(runs: int) -> tuple[list[str], dict[str, float]]:
    """A line a world and claim: the highest rate over 2, 10 and 30 % of tasks that move besides."""
    rules = ["no look", "naive", *SHAPES, "anytime"]
    lines = [f"| tasks | claim | looks | {' | '.join(rules)} |", "|---|---|--:|" + "--:|" * len(rules)]
    worst = {f"false_{name}_{rule}": 0.0 for name in ("pass", "fail") for rule in ("scheduled", "anytime")}
    for world in error_worlds():
        for name, delta, sign in (("PASS", -MARGIN, 1), ("FAIL", 0.0, -1)):
            worlds = [replace(world, delta=delta, churn=churn) for churn in (0.02, 0.10, 0.30)]
            found = [claim_rates(there, delta, sign, runs) for there in worlds]
            rates = {rule: max(rates[rule] for rates in found) for rule in rules}
            for rule in ("scheduled", "anytime"):
                key = f"false_{name.lower()}_{rule}"
                worst[key] = max(worst[key], round(rates[rule], 4))
            cells = " | ".join(f"{100 * rates[rule]:.1f}" for rule in rules)
            lines.append(f"| {world.name} | {name} | {len(world.looks()[0])} | {cells} |")
    return lines, worst


def frequent_table(runs: int) -> list[str]:
    """Looks after every group beside looks after batches: what is claimed wrongly, and what it saves."""
    lines = [
        "| tasks | batches of | looks | naive: wrong PASS | scheduled: wrong PASS | used | decided "
        "| anytime: wrong PASS | used | decided |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (size, alike), groups in product(GROUPS, (50, 150)):
        same = World(name="", sizes_G=(size,) * groups, alike=alike)
        lost, few = replace(same, delta=-MARGIN), runs if size == 1 else runs // 4
        names, moves = same.groups(), lost.moves(few, seed=5)
        always = (evidence(lost, lost.moves(runs, seed=5), -MARGIN, 1)[:, -1] >= GOAL).mean()
        for batch, label in ((BATCH, "32 tasks"), (EVERY_GROUP, "1 group")):
            ends, shares = same.looks(batch)
            every = np.cumsum(same.sizes_G) if batch == EVERY_GROUP else ends
            p_R = [min(difference(lost, row[:end], names).p_superior(-MARGIN) for end in every) for row in moves]
            level_K = levels(shares, LEVEL)
            at_looks = [
                any(difference(lost, row[:end], names).p_superior(-MARGIN) <= level
                    for end, level in zip(ends, level_K, strict=True))
                for row in moves
            ]  # fmt: skip
            used, spoke = drawn(same, False, batch, few)
            used_bets, spoke_bets = drawn_by_bets(same, False, batch, runs)
            lines.append(
                f"| {groups} groups of {size}{f', {alike:.0%} alike' if size > 1 else ''} | {label} | {len(every)} "
                f"| {np.mean(np.array(p_R) <= LEVEL):.1%} | {np.mean(at_looks):.1%} | {used:.0f} | {spoke:.0%} "
                f"| {always:.1%} | {used_bets:.0f} | {spoke_bets:.0%} |"
            )
    return lines


def continued(runs: int) -> dict[str, list[float]]:
    """Share decided PASS by 60, 120 and 240 tasks, each collected by those who were undecided, by what is true."""
    found = {}
    for name, delta in (("the margin was lost", -MARGIN), ("nothing changed", 0.0)):
        world = World(name="", sizes_G=(1,) * 240, delta=delta)
        course = [replace(world.terms(), groups=n, tasks=n, drawn=new) for n, new in ((60, 60), (120, 60), (240, 120))]
        shown = evidence(world, world.moves(runs, seed=6), -MARGIN, 1, course) >= GOAL
        found[name] = [round(float(shown[:, n - 1].mean()), 4) for n in (60, 120, 240)]
    return found


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


def drawn_by_bets(world: World, target: bool, batch: int, runs: int) -> tuple[float, float]:
    """Tasks used on average, and the share of repetitions that were decided, where bets decide after each batch."""
    moves = world.moves(runs, seed=2)
    every = np.cumsum(world.sizes_G)
    ends = every if batch == EVERY_GROUP else np.array(world.looks(batch)[0])
    at = np.searchsorted(every, ends)  # the last group of each batch
    mean = np.cumsum(moves, axis=1)[:, ends - 1] / ends
    up = evidence(world, moves, 0.0 if target else -MARGIN, 1)[:, at] >= GOAL
    down = evidence(world, moves, MIN_GAIN if target else 0.0, -1)[:, at] >= GOAL
    spoke = up | (down if target else down & (mean <= -MARGIN))
    used = np.where(spoke.any(1), ends[spoke.argmax(1)], world.tasks)
    return float(used.mean()), float(spoke.any(1).mean())


def planned_table(runs: int) -> tuple[list[str], dict[str, list[float]]]:
    """Against a fixed number of tasks that was planned for the same error rates and power."""
    lines = [
        "| truth | groups | power | fixed n | decided | suite | scheduled: tasks | saved | decided "
        "| anytime: tasks | saved | decided | each group: tasks | saved | decided |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    saved: dict[str, list[float]] = {}
    for case, (size, alike), power in product(CASES, GROUPS, (0.8, 0.9)):
        churn, delta = case.truth
        few = runs if size == 1 else max(runs // 3, 100)
        n = planned_tasks(case, size, alike, power)
        fixed = World(name="", sizes_G=(size,) * (n // size), delta=delta, churn=churn, alike=alike)
        groups = fixed.groups()
        once = sum(bool(decided(difference(fixed, row, groups), case.target)) for row in fixed.moves(few, seed=3))
        most = math.ceil(n * inflation(n, power, BATCH) / size)
        suite = replace(fixed, sizes_G=(size,) * most)
        ways = {
            "scheduled": drawn(suite, case.target, BATCH, few),
            "anytime": drawn_by_bets(suite, case.target, BATCH, runs),
            "anytime, each group": drawn_by_bets(suite, case.target, EVERY_GROUP, runs),
        }
        name = f"{case.name}; {described(size, alike)}; power {power}"
        saved |= {f"{name}; {way}": [round(1.0 - used / n, 3), round(spoke, 3)] for way, (used, spoke) in ways.items()}
        cells = " | ".join(f"{used:.0f} | {1.0 - used / n:.0%} | {spoke:.0%}" for used, spoke in ways.values())
        lines.append(
            f"| {case.name} | {described(size, alike)} | {power:.0%} | {n} | {once / few:.0%} "
            f"| {most * size} | {cells} |"
        )
    return lines, saved


def whole_table(runs: int) -> list[str]:
    """Against all tasks of a suite that is there anyway."""
    lines = [
        "| truth | groups | suite | scheduled: tasks | saved | decided | anytime: tasks | saved | decided |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (name, target, churn, delta), tasks, (size, alike) in product(TRUTHS, (150, 300), GROUPS):
        world = World(name="", sizes_G=(size,) * (tasks // size), delta=delta, churn=churn, alike=alike)
        few = runs if size == 1 else max(runs // 3, 100)
        ways = drawn(world, target, BATCH, few), drawn_by_bets(world, target, BATCH, runs)
        cells = " | ".join(f"{used:.0f} | {1.0 - used / tasks:.0%} | {spoke:.0%}" for used, spoke in ways)
        lines.append(f"| {name} | {described(size, alike)} | {tasks} | {cells} |")
    return lines


def described(size: int, alike: float) -> str:
    return f"of {size}, {alike:.0%} alike" if size > 1 else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="repetitions of a line (less of the costly ones)")
    runs = parser.parse_args().runs
    began = time.perf_counter()
    with ProcessPoolExecutor(max_workers=2) as pool:
        first, second = pool.submit(error_table, runs), pool.submit(planned_table, runs)
        third, fourth = pool.submit(frequent_table, runs), pool.submit(whole_table, runs)
        errors, worst = first.result()
        print(f"Claims that are wrong, in % of {runs} repetitions; at most {100 * LEVEL:g} are allowed:\n")
        print("\n".join(errors), "\n", flush=True)
        print("\n".join(third.result()), "\n", flush=True)
        planned, saved = second.result()
        print("\n".join(planned), "\n", flush=True)
        print("\n".join(fourth.result()), "\n")
    figures = {**worst, "level": LEVEL, "runs": runs, "saved": saved, "continued": continued(10 * runs)}
    print(json.dumps({**figures, "seconds": round(time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
