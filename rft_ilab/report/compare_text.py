"""A comparison of models in a terminal and in Markdown."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rft_ilab.regress.compare import Comparison, SkillRow
from rft_ilab.report import compare_words as words
from rft_ilab.report import wording
from rft_ilab.report.markdown import escape

CELL = 14  # columns of the terminal that a model needs
SKILL = 24
MOST_PAIRS = 30  # beyond it the terminal lists what is decided, and counts the rest


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The models, a matrix of skills and models, the pairs, what follows from them."""
    short = words.letters(comparison)
    for model in comparison["models"]:
        console.print(Text(f"{short[model['name']]} = {wording.one_line(model['name'])}"), soft_wrap=True)
    console.print()
    labels = list(short)
    fit = max(1, (console.width - SKILL) // CELL)
    for start in range(0, len(labels), fit):
        console.print(_matrix(comparison, labels[start : start + fit]))
        console.print()
    console.print(_pairs(comparison))
    console.print()
    lines = words.overall(comparison, short) + words.ungraded(comparison, short)
    for line in [*lines, words.fine_print(comparison)]:
        console.print(Text(wording.one_line(line)))


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def _matrix(comparison: Comparison, labels: list[str]) -> Table:
    short = words.letters(comparison)
    names = wording.short_names(sorted({row["skill"] for row in comparison["rows"]}))
    table = _table()
    table.add_column("skill", overflow="fold", min_width=14)
    table.add_column("tasks", justify="right", no_wrap=True)
    for label in labels:
        table.add_column(short[label], no_wrap=True, min_width=CELL - 2)
    for row in comparison["rows"]:
        cells = [Text(_cell(row, label)) for label in labels]
        name = f"{wording.one_line(names[row['skill']])}\n{words.what(row)}"
        table.add_row(Text(name), str(row["tasks"]), *cells)
    return table


def _cell(row: SkillRow, label: str) -> str:
    """``93.7% *`` over its interval, and over the macro mean where there are classes."""
    (score,) = [s for s in row["scores"] if s["model"] == label]
    low, high = score["ci"]
    lines = [wording.percent(score["score"]) + (" *" if label in row["best"] else ""), wording.interval((low, high))]
    return "\n".join(lines + ([f"macro {wording.percent(score['macro'])}"] if score["macro"] is not None else []))


def _pairs(comparison: Comparison) -> Table:
    short = words.letters(comparison)
    names = wording.short_names(sorted({row["skill"] for row in comparison["rows"]}))
    table = _table()
    table.add_column("skill", overflow="fold", min_width=14)
    table.add_column("pair", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("shown", overflow="fold")
    left_out = 0
    for row in comparison["rows"]:
        for pair in row["pairs"]:
            if comparison["pairs"] > MOST_PAIRS and not pair["finding"].endswith("better"):
                left_out += 1
                continue
            kind = ", sampled" if row["metric"] == "sampled" else ""
            table.add_row(
                Text(wording.one_line(names[row["skill"]]) + kind),
                words.pair_name(pair, short),
                words.difference(pair),
                wording.p_value(pair["p"]),
                Text(wording.one_line(words.finding(pair, row, short))),
            )
    if left_out:
        table.add_row("...", "", "", "", f"{wording.count(left_out, 'pair')} not told apart: see --json or --html")
    return table


def markdown_comparison(comparison: Comparison) -> str:
    """The same in GitHub-flavoured Markdown; every text from outside is escaped. Ends with a line feed."""
    short = words.letters(comparison)
    lines = [f"## Comparison of {len(short)} models", ""]
    lines += [f"- **{letter}**: {escape(name)}" for name, letter in short.items()]
    lines += ["", f"| skill | asked | tasks | {' | '.join(short.values())} |"]
    lines.append("|---|---|--:|" + "--:|" * len(short))
    for row in comparison["rows"]:
        cells = [escape(_cell(row, label).replace("\n", " ")).replace(r"\*", "&#42;") for label in short]
        lines.append(f"| {escape(row['skill'])} | {escape(words.what(row))} | {row['tasks']} | {' | '.join(cells)} |")
    lines += ["", "| skill | pair | difference in points | p | shown |", "|---|---|--:|--:|---|"]
    for row in comparison["rows"]:
        kind = ", sampled" if row["metric"] == "sampled" else ""
        for pair in row["pairs"]:
            p = wording.p_value(pair["p"]).replace("<", "&lt;")
            cells = [words.pair_name(pair, short), words.difference(pair), p]
            said = escape(words.finding(pair, row, short))
            lines.append(f"| {escape(row['skill'])}{kind} | {' | '.join(cells)} | {said} |")
    lines.append("")
    lines += [f"- {escape(line)}" for line in [*words.overall(comparison, short), *words.ungraded(comparison, short)]]
    return "\n".join([*lines, "", escape(words.fine_print(comparison)), ""])
