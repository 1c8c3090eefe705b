"""The verdict in a terminal: a panel, one table, the cost, the path of the full report.

Every word of it also makes sense without colour and at 80 columns.
"""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rft_ilab.report import wording
from rft_ilab.report.data import RunReport
from rft_ilab.report.frontier import chosen_sentence
from rft_ilab.report.gate_data import GateResult
from rft_ilab.report.passes import pass_rows

STYLES = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
MOST_LINES = 6  # of pass@k, and of worst groups
WIDE = 100  # from this many columns on, skills are named in full


def print_summary(report: RunReport, console: Console, html: Path | None = None) -> None:
    """Print the summary of a run; ``html`` is where the full report lies (default: in the run).

    A run without a verdict gets one line that says so, and its cost so far.
    """
    page = html or report.directory / "report.html"
    if report.control:
        console.print(Text(wording.one_line(wording.control_sentence(report.control)), style="bold yellow"))
    if report.gate is None:
        console.print(Text(wording.NO_VERDICT, style="yellow"))
    else:
        console.print(_panel(report.gate))
        roomy = _table(report.gate, full_names=console.width >= WIDE, gap=1)
        fits = console.measure(roomy, options=console.options.update_width(4 * WIDE)).maximum <= console.width
        console.print(roomy if fits else _table(report.gate, full_names=False, gap=0))
        console.print(Text(f"Differences in points of greedy accuracy, {wording.level(report.gate)} intervals."))
        if report.gate.drawn:
            console.print(Text(wording.drawn_sentence(report.gate)))
        rows = pass_rows(report.gate, largest=True)[:MOST_LINES]
        if rows:
            console.print(Text("Sampled answers: pass@k, at least one of k is right; pass^k, all k are."))
        for row in rows:
            console.print(Text(wording.one_line(wording.change_sentence(f"{row.skill}, {row.name}", row.change))))
        for skill, worst in wording.worst_groups(report.gate)[:MOST_LINES]:
            console.print(Text(f"Tasks that lost most, in {wording.one_line(wording.worst_sentence(skill, worst))}."))
        if any(flip.detailed for flip in report.gate.flips):
            fixed, broken = report.gate.fixed_and_broken
            command = wording.one_line(report.explain_command())
            console.print(Text(f"Changed: {broken} answers broken, {fixed} fixed; see {command}"), soft_wrap=True)
    if report.selection and (sentence := chosen_sentence(report.selection)):
        console.print(Text(f"Kept:   {wording.one_line(sentence)}."))
    for entry in report.attribution:
        console.print(Text(f"Stages: {wording.one_line(wording.stages_sentence(entry))}."))
    for note in report.damaged:
        console.print(Text(f"Note: {note}.", style="yellow"))
    console.print(Text(f"Cost:   {wording.cost_sentence(report)}"))
    # soft_wrap: a path that is cut into lines cannot be clicked or copied
    console.print(Text(f"Report: {page}" if page.exists() else f"Run:    {report.directory}"), soft_wrap=True)


def _panel(gate: GateResult) -> Panel:
    style = STYLES[gate.outcome]
    lines = [Text(wording.outcome_sentence(gate), style="bold")]
    lines += [Text(wording.one_line(wording.target_sentence(target, wording.level(gate)))) for target in gate.targets]
    lines.append(Text(wording.one_line(wording.watched_sentence(gate))))
    reasons = Table.grid(padding=(0, 1, 0, 0))
    for reason in gate.reasons:
        reasons.add_row("-", Text(wording.one_line(reason)))
    title = Text(f" {gate.outcome} ", style=f"bold {style}")
    return Panel(Group(*lines, reasons), title=title, title_align="left", border_style=style)


def _table(gate: GateResult, *, full_names: bool, gap: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("skill", overflow="fold", min_width=14)
    table.add_column("tier", no_wrap=True)
    for name in ("n", "before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    judged = [(t.skill, "target", t.n, t.greedy, t.outcome) for t in gate.targets]
    judged += [(w.skill, w.tier, w.n, w.greedy, w.outcome) for w in gate.watched]
    names = wording.short_names([row[0] for row in judged])
    for skill, tier, n, change, outcome in judged:
        table.add_row(
            Text(wording.one_line(skill if full_names else names[skill])),
            tier,
            str(n),
            wording.percent(change.before),
            wording.percent(change.after),
            Text(wording.difference(change.delta, change.ci).replace(" points", "")),
            Text(outcome, style=STYLES[outcome]),
        )
    return table
