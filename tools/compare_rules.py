"""What other gates decide on the same paired outcomes: error rates, and tasks until the right decision is the rule.

Called by ``tools/simulate_gate.py --peers``. Every rule sees right and wrong answers of two models on the same tasks
and says PASS, FAIL or neither. The others, which have one knob, are also tuned: turned until a true loss of the margin
passes in at most alpha / 2 of the cases, on the very world in which they are then tried, which no user can do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rft_ilab.config import GateSettings
from rft_ilab.regress.simulation import World, watched_outcomes

WORLDS = (
    World(name="independent tasks", churn=0.05),
    World(name="groups of 6, ICC 0.7", churn=0.05, size=6, icc=0.7),
)
SIZES = (36, 60, 90, 150, 240, 360, 600, 900, 1500, 2400, 3600)
WANTED = 0.8


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one repetition: tasks, and those right before and after, right to wrong, wrong to right."""

    n: int
    before: int
    after: int
    broken: int
    fixed: int

    @property
    def delta(self) -> float:
        return (self.after - self.before) / self.n


Rule = Callable[[Counts, float], str]


def lm_eval(c: Counts, knob: float) -> str:
    """lm-evaluation-harness prints a standard error of each model: worse if beyond ``knob`` of both together."""
    errors = sum(p * (1 - p) / max(c.n - 1, 1) for p in (c.before / c.n, c.after / c.n))
    return "FAIL" if c.delta < -knob * math.sqrt(errors) else "PASS"


def z_test(c: Counts, knob: float) -> str:
    """Two proportions, unpaired, pooled: FAIL if significantly worse."""
    share = (c.before + c.after) / (2 * c.n)
    error = math.sqrt(max(2 * share * (1 - share) / c.n, 1e-12))
    return "FAIL" if c.delta / error < -knob else "PASS"


def mcnemar(c: Counts, knob: float) -> str:
    """Paired, without groups: FAIL if significantly worse."""
    moved = c.broken + c.fixed
    return "FAIL" if moved and (c.fixed - c.broken) / math.sqrt(moved) < -knob else "PASS"


def threshold(c: Counts, knob: float) -> str:
    """promptfoo, DeepEval: a fixed pass rate; here the baseline's true rate (70 %) less ``knob``."""
    return "PASS" if c.after / c.n >= 0.7 - knob else "FAIL"


PEERS: tuple[tuple[str, Rule, float], ...] = (
    ("lm-evaluation-harness, 2 standard errors", lm_eval, 2.0),
    ("two-proportion z-test", z_test, 1.96),
    ("McNemar", mcnemar, 1.96),
    ("threshold: 70 % less the margin", threshold, 0.10),
)
KNOBS: dict[Rule, tuple[float, float]] = {
    lm_eval: (-30.0, 4.0),
    z_test: (-30.0, 4.0),
    mcnemar: (-30.0, 4.0),
    threshold: (-0.3, 0.1),
}


def outcomes(world: World, runs: int, seed: int, settings: GateSettings) -> tuple[list[Counts], Sequence[str]]:
    """The same repetitions for all rules, and what this gate says of them."""
    rng = np.random.default_rng([seed, world.tasks, world.size, round(-1000 * world.delta)])
    counts: list[Counts] = []
    ours: list[str] = []
    for _ in range(runs):
        state = rng.bit_generator.state
        before_N, after_N, _ = world.draw(rng)
        counts.append(
            Counts(
                len(before_N),
                int(before_N.sum()),
                int(after_N.sum()),
                int((after_N < before_N).sum()),
                int((after_N > before_N).sum()),
            )
        )
        rng.bit_generator.state = state
        ours.append(watched_outcomes([world.difference(rng, settings.alpha)], settings)[0])
    return counts, ours


def tuned(rule: Rule, lost: list[Counts], alpha: float) -> float:
    """The most lenient knob at which at most alpha / 2 of ``lost`` pass; the larger a knob, the more pass."""
    low, high = KNOBS[rule]
    for _ in range(40):
        middle = (low + high) / 2
        passed = sum(rule(c, middle) == "PASS" for c in lost) / len(lost)
        low, high = (middle, high) if passed <= alpha / 2 else (low, middle)
    return low


def peers(settings: GateSettings, runs: int, seed: int) -> dict[str, object]:
    """Prints a table a world; returns its figures, None for "never"."""
    figures: dict[str, object] = {"alpha": settings.alpha, "margin": settings.margin, "runs": runs}
    for world in WORLDS:
        print(f"\n{world.name}; 70 % right, 10 % of the tasks flip though nothing changed, margin 10 points")
        heads = ("wrong PASS", "wrong FAIL", "PASS if same", "FAIL at -20", "tasks for PASS", "tasks for FAIL")
        print(f"{'rule':46}" + "".join(f"{head:>15}" for head in heads))
        for name, row in _rows(world, settings, runs, seed):
            figures[f"{world.name}: {name}"] = {key: v if math.isfinite(v) else None for key, v in row.items()}
            shares = "".join(f"{100 * row[key]:14.1f}%" for key in ("wrong_pass", "wrong_fail", "passed", "failed"))
            print(f"{name:46}{shares}" + "".join(f"{_shown(row[key]):>15}" for key in ("tasks_pass", "tasks_fail")))
    print(
        "\nwrong PASS: worst share of PASS at a true loss of the margin, over all numbers of tasks; wrong FAIL: the"
        "\nsame of FAIL where nothing changed. PASS if same, FAIL at -20 (twice the margin): at 150 tasks. Tasks: from"
        "\nwhich on that is the outcome in 80 % of cases. Tuned: to a wrong PASS of alpha / 2 in this very world."
    )
    return figures


def _rows(world: World, settings: GateSettings, runs: int, seed: int) -> Iterator[tuple[str, dict[str, float]]]:
    sizes = [n for n in SIZES if n >= 6 * world.size]
    truths = {"same": 0.0, "lost": -settings.margin, "twice": -2 * settings.margin}
    found = {
        (n, key): outcomes(replace(world, tasks=n, delta=delta), runs, seed, settings)
        for n in sizes
        for key, delta in truths.items()
    }
    ours = {place: said for place, (_, said) in found.items()}
    yield "this gate", _figures(ours, sizes)
    for name, rule, knob in PEERS:
        yield name, _figures({p: [rule(c, knob) for c in counts] for p, (counts, _) in found.items()}, sizes)
    for name, rule, _ in PEERS:
        knobs = {n: tuned(rule, found[n, "lost"][0], settings.alpha) for n in sizes}
        said = {(n, key): [rule(c, knobs[n]) for c in counts] for (n, key), (counts, _) in found.items()}
        yield f"{name.split(',')[0].split(':')[0]}, tuned", _figures(said, sizes)


def _figures(said: Mapping[tuple[int, str], Sequence[str]], sizes: list[int]) -> dict[str, float]:
    def share(n: int, key: str, outcome: str) -> float:
        return said[n, key].count(outcome) / len(said[n, key])

    def needed(key: str, outcome: str) -> float:
        """Fewest tasks from which on the outcome comes often enough; infinite if it never does."""
        good = [share(n, key, outcome) >= WANTED for n in sizes]
        return next((float(n) for i, n in enumerate(sizes) if all(good[i:])), math.inf)

    return {
        "wrong_pass": max(share(n, "lost", "PASS") for n in sizes),
        "wrong_fail": max(share(n, "same", "FAIL") for n in sizes),
        "passed": share(150, "same", "PASS"),
        "failed": share(150, "twice", "FAIL"),
        "tasks_pass": needed("same", "PASS"),
        "tasks_fail": needed("twice", "FAIL"),
    }


def _shown(tasks: float) -> str:
    return "never" if math.isinf(tasks) else f"{tasks:.0f}"
