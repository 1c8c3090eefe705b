"""A comparison of models as one self-contained page: accuracies as dots with intervals, then pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from rft_ilab.regress.compare import Comparison, SkillRow
from rft_ilab.report import compare_words as words
from rft_ilab.report.accuracy_charts import accuracy_axis, accuracy_row
from rft_ilab.report.charts import interval_axis, interval_row, interval_scale
from rft_ilab.report.page import render_page
from rft_ilab.store import write_atomic

MINUS = "\N{NO-BREAK SPACE}−\N{NO-BREAK SPACE}"


def write_comparison(comparison: Comparison, path: Path) -> None:
    write_atomic(path, render_comparison(comparison))


def render_comparison(comparison: Comparison) -> str:
    """The page as HTML text; the same bytes for the same comparison."""
    short = words.letters(comparison)
    standings = {s["model"]: s for s in comparison["standings"]}
    return render_page(
        "compare.html",
        models=[{**m, **standings[m["name"]], "letter": short[m["name"]]} for m in comparison["models"]],
        lines=words.overall(comparison, short) + words.ungraded(comparison, short),
        rows=[_row(row, i, short) for i, row in enumerate(comparison["rows"])],
        pairs=comparison["pairs"],
        skills=len({row["skill"] for row in comparison["rows"]}),
        level=f"{100 * (1 - comparison['alpha']):g}%",
        axis=accuracy_axis(),
        fine_print=words.fine_print(comparison),
    )


def _row(row: SkillRow, index: int, short: dict[str, str]) -> dict[str, Any]:
    measured = [p for p in row["pairs"] if p["delta"] is not None]
    room = 1.2 * row["margin"] or 0.1
    scale, ticks = interval_scale([(-room, room), *((p["ci"][0], p["ci"][1]) for p in measured)])
    scores = []
    for i, s in enumerate(row["scores"]):
        best, (low, high) = s["model"] in row["best"], s["ci"]
        title, key = f"{row['skill']}, {short[s['model']]}", f"score-{index}-{i}"
        plot = Markup("") if s["score"] is None else accuracy_row(title, s["score"], (low, high), key, filled=best)
        scores.append({**s, "letter": short[s["model"]], "best": best, "plot": plot})
    pairs = []
    for i, p in enumerate(row["pairs"]):
        name, (low, high) = words.pair_name(p, short), p["ci"]
        style = "after" if p["finding"].endswith("better") else "before"
        plot = Markup("")
        if p["delta"] is not None:
            title, key = f"{row['skill']}, {name}", f"pair-{index}-{i}"
            plot = interval_row(title, p["delta"], (low, high), scale, key, row["margin"], style, both_sides=True)
        shown = {"name": name.replace(" - ", MINUS), "plot": plot, "finding": words.finding(p, row, short)}
        pairs.append({**p, **shown})
    return {**row, "what": words.what(row), "scores": scores, "pairs": pairs, "axis": interval_axis(scale, ticks)}
