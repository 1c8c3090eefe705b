"""The table of results in docs/results.md, from finished runs: ``python tools/results.py RUN_DIRECTORY ...``"""

from __future__ import annotations

import sys
from pathlib import Path

from rft_ilab.report.json_report import json_summary
from rft_ilab.report.load import load_run
from rft_ilab.store import read_json


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def interval(low: float, high: float) -> str:
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def table(runs: list[Path]) -> str:
    """Markdown: one column a run, before -> after and the difference with its 95 % interval."""
    columns: list[list[str]] = []
    for run in runs:
        summary = json_summary(load_run(run))
        (target,) = summary["targets"]
        cells = [summary["verdict"]]
        for metric in ("greedy", "sampled"):
            before, after = target[metric]["before"], target[metric]["after"]
            gain = f"{100 * (after - before):+.1f} {interval(*target[metric]['ci'])}"
            cells += [f"{percent(before)} -> **{percent(after)}**", gain]
        cells += [f"{percent(target['macro']['before'])} -> **{percent(target['macro']['after'])}**"]
        cells += [percent(target["majority"])]
        cells += [f"{100 * w['delta']:+.1f} {interval(*w['ci'])}" for w in summary["watched"]]
        cells += [
            f"{summary['wall_s'] / 60:.1f} min",
            f"{summary['cpu_s'] / 60:.1f} min",
            f"{summary['peak_rss_mb'] / 1024:.1f} GiB",
        ]
        columns.append(cells)
    names = ["verdict", "target, greedy", "difference in points", "target, sampled (T=1)", "difference in points"]
    names += ["per class (macro)", "majority class alone"]
    names += [f"watched: {w['skill']}" for w in json_summary(load_run(runs[0]))["watched"]]
    names += ["wall time", "CPU time", "peak memory"]
    seeds = [read_json(run / "manifest.json")["seed"] for run in runs]
    lines = ["| |" + "".join(f" seed {seed} |" for seed in seeds), "|---|" + "---|" * len(runs)]
    lines += [f"| {name} | " + " | ".join(column[i] for column in columns) + " |" for i, name in enumerate(names)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]]))
