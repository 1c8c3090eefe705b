"""Five seeds on three skills: does every run end better than it began, and does nothing else get worse?

    make seeds                                   # 15 whole runs, one after the other: hours; what is there is reused
    make seeds ARGS='--seeds 2 --skills dates/iso_date'
    make seeds ARGS='--report'                   # only the table of the runs that are there

Each run is ``ilab rft run --target SKILL --seed N --run seeds-NAME-N`` with the shipped settings. The table has the
test split's greedy gain with its 95 % interval, and the watched skill that came off worst. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SKILLS = ("healthcare/patient_triage", "dates/iso_date", "retail/order_json")


def run_name(skill: str, seed: int) -> str:
    return f"seeds-{skill.rsplit('/', 1)[-1]}-{seed}"


def row(directory: Path) -> dict[str, Any] | None:
    """What a finished run came to; None if it is not finished."""
    from rft_ilab.store import read_json

    if not (directory / "gate" / "verdict.json").exists():
        return None
    verdict = read_json(directory / "gate" / "verdict.json")
    selection = read_json(directory / "rl" / "selection.json")
    base = next(c for c in selection["candidates"] if c["name"] == "base")
    scale, chosen_names = selection["scale"], (selection["chosen"], "base")
    chosen = next(c for c in selection["frontier"] if c["scale"] == scale and c["name"] in chosen_names)
    (target,) = verdict["targets"]
    worst = min(verdict["watched"], key=lambda w: w["delta"])
    return {
        "outcome": verdict["outcome"],
        "before": target["greedy"]["before"],
        "after": target["greedy"]["after"],
        "gain": target["greedy"]["delta"],
        "interval": target["greedy"]["ci"],
        "worst": worst["skill"],
        "worst_delta": worst["delta"],
        "worst_interval": worst["ci"],
        "margin": worst["margin"],
        "val_before": base["score"],
        "val_after": chosen["score"],
    }


def interval(value: float, ends: Sequence[float]) -> str:
    """In points."""
    return f"{100 * value:+.1f} [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--skills", nargs="+", default=SKILLS, metavar="SKILL")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--taxonomy", type=Path, default=Path(__file__).resolve().parents[1] / "taxonomy")
    arguments = parser.parse_args()
    from rft_ilab.store import user_directory

    runs = user_directory("data") / "runs"
    found = []
    print(f"{'skill':<16} seed  verdict       before -> after   gain [95 % interval]    worst watched skill [interval]")
    for skill in arguments.skills:
        for seed in range(arguments.seeds):
            name = run_name(skill, seed)
            if not arguments.report and row(runs / name) is None:
                command = ["ilab", "rft", "run", "--taxonomy-path", str(arguments.taxonomy), "--target", skill]
                # FAIL and INCONCLUSIVE are results, too.
                subprocess.run([*command, "--seed", str(seed), "--run", name], stdout=subprocess.DEVNULL, check=False)
            if (r := row(runs / name)) is None:
                print(f"{skill.rsplit('/', 1)[-1]:<16} {seed:>4}  not there", flush=True)
                continue
            found.append(r)
            gain = interval(r["gain"], r["interval"])
            worst = f"{r['worst'].rsplit('/', 1)[-1]} {interval(r['worst_delta'], r['worst_interval'])}"
            change = f"{r['before']:>6.1%} -> {r['after']:<6.1%}"
            print(f"{skill.rsplit('/', 1)[-1]:<16} {seed:>4}  {r['outcome']:<12} {change}  {gain}  {worst}", flush=True)
    if not found:
        sys.exit("no finished run")
    print(
        json.dumps(
            {
                "runs": len(found),
                "pass": sum(r["outcome"] == "PASS" for r in found),
                "ended_below_base": sum(r["gain"] < 0 for r in found),
                "ended_below_base_on_validation": sum(r["val_after"] < r["val_before"] for r in found),
                "smallest_gain": round(min(r["gain"] for r in found), 4),
                "largest_watched_loss": round(max(-r["worst_delta"] for r in found), 4),
                "loss_beyond_margin": sum(-r["worst_delta"] >= r["margin"] for r in found),
            }
        )
    )


if __name__ == "__main__":
    main()
