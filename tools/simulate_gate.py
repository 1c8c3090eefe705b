"""Error rates of the gate by simulation: ``python tools/simulate_gate.py [--runs N] [--peers | --unequal]``.

Prints a table and, as the last line, JSON. Exit code 1 if a rate exceeds what is promised by more than chance allows.
``--peers`` compares other rules on the same outcomes instead, ``--unequal`` shows suites of few large groups.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time

from rft_ilab.config import GateSettings
from rft_ilab.regress.simulation import Rates, World, family_rates, rates, standard_worlds

COLUMNS = ("false_pass", "false_fail", "target_false_pass", "target_false_fail", "uncovered")
HEADINGS = ("false PASS", "false FAIL", "target: PASS", "target: FAIL", "uncovered")


def promised(settings: GateSettings) -> dict[str, float]:
    """What ``docs/statistics.md`` promises of one suite."""
    half = settings.alpha / 2.0
    return dict(zip(COLUMNS, (half, settings.alpha, half, settings.alpha, settings.alpha), strict=True))


def chance_limit(level: float, runs: int, looks: int) -> float:
    """The share that a true ``level`` exceeds in one of a thousand repetitions of all ``looks``."""
    from scipy.stats import binom

    return float(binom.isf(0.001 / looks, runs, level)) / runs


def table(found: list[Rates]) -> None:
    print(f"{'world':42}{'tasks':>6}" + "".join(f"{heading:>14}" for heading in HEADINGS) + f"{'PASS if same':>14}")
    for row in found:
        cells = "".join(f"{100 * getattr(row, column):13.1f}%" for column in COLUMNS)
        print(f"{row.world.name:42}{row.world.tasks:6}{cells}{100 * row.passed:13.1f}%")


def summary(found: list[Rates], settings: GateSettings) -> tuple[dict[str, float], list[str]]:
    """Worst and median of each rate, and a line for each that breaks its promise."""
    figures: dict[str, float] = {}
    broken = []
    print()
    print(f"{'':48}" + "".join(f"{heading:>14}" for heading in HEADINGS))
    for label, of in (("worst world", max), ("median world", statistics.median)):
        for column in COLUMNS:
            figures[f"{label.split()[0]}_{column}"] = round(of([getattr(row, column) for row in found]), 5)
        print(f"{label:48}" + "".join(f"{100 * figures[f'{label.split()[0]}_{c}']:13.1f}%" for c in COLUMNS))
    promises = promised(settings)
    print(f"{'promised at most':48}" + "".join(f"{100 * promises[column]:13.1f}%" for column in COLUMNS))
    for row in found:
        for column, level in promises.items():
            if getattr(row, column) > chance_limit(level, row.runs, len(found)):
                broken.append(
                    f"{row.world.name}, {row.world.tasks} tasks: {column} {getattr(row, column):.4f} > {level}"
                )
    return figures, broken


def families(settings: GateSettings, runs: int) -> dict[str, float]:
    """Many watched suites at once."""
    print(f"\n{'watched suites, judged together':58}{'any FAIL':>12}{'all PASS':>12}{'false PASS':>12}")
    figures: dict[str, float] = {}
    for count in (10, 40):
        for name, world in {
            "150 tasks, nothing changed": World(tasks=150),
            "20 tasks, much churn, nothing changed": World(tasks=20, churn=0.15),
            "60 tasks, groups of 6, ICC 0.7, nothing changed": World(tasks=60, size=6, icc=0.7, churn=0.15),
            "150 tasks, every suite lost its margin": World(tasks=150, delta=-settings.margin),
        }.items():
            found = family_rates([world] * count, settings, max(runs * 10 // count, 50))
            print(
                f"{f'{count} x {name}':58}{100 * found.any_fail:11.1f}%{100 * found.all_pass:11.1f}%"
                f"{100 * found.any_false_pass:11.1f}%"
            )
            if world.delta:
                figures["family_false_pass"] = max(figures.get("family_false_pass", 0.0), found.any_false_pass)
            else:
                figures["family_false_fail"] = max(figures.get("family_false_fail", 0.0), found.any_fail)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="repetitions of a world and a true difference")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, nargs="+", default=[20, 60, 150, 500, 2000])
    parser.add_argument("--family-runs", type=int, default=200, help="repetitions with 10 suites (with 40: a quarter)")
    parser.add_argument("--peers", action="store_true", help="compare with other rules on the same outcomes")
    parser.add_argument("--unequal", action="store_true", help="suites in which few large groups carry the weight")
    parser.add_argument("--json-rows", action="store_true", help="put every world into the last line")
    arguments = parser.parse_args()
    settings = GateSettings()
    if arguments.peers:
        from compare_rules import peers  # type: ignore[import-not-found]  # beside this file

        print(json.dumps(peers(settings, arguments.runs, arguments.seed)))
        return 0
    if arguments.unequal:
        from unequal_groups import unequal_groups  # type: ignore[import-not-found]

        print(json.dumps(unequal_groups(arguments.runs)))
        return 0
    began = time.perf_counter()
    found = [rates(world, settings, arguments.runs, arguments.seed) for world in standard_worlds(arguments.tasks)]
    table(found)
    figures, broken = summary(found, settings)
    figures |= families(settings, arguments.family_runs)
    print("\n" + ("\n".join(broken) if broken else "no rate exceeds its promise by more than chance allows"))
    line: dict[str, object] = {"alpha": settings.alpha, "runs": arguments.runs, "worlds": len(found), **figures}
    if arguments.json_rows:
        line["rows"] = [dataclasses.asdict(row) for row in found]
    print(json.dumps({**line, "broken": len(broken), "seconds": round(time.perf_counter() - began)}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
