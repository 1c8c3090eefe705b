"""Flipped tasks in the order in which they need a look, and a list of them for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rft_ilab.regress.flips import explain_command
from rft_ilab.report import wording
from rft_ilab.report.gate_data import Flip, GateResult


def worst_group_first(flips: Sequence[Flip]) -> list[Flip]:
    """Groups by what they lost in all, broken tasks first within a group; otherwise the order stays."""
    lost: defaultdict[tuple[str, str], float] = defaultdict(float)
    for flip in flips:
        lost[_group(flip)] += flip.loss
    first = {key: position for position, key in enumerate(lost)}
    return sorted(flips, key=lambda flip: (-lost[_group(flip)], first[_group(flip)], -flip.loss))


def _group(flip: Flip) -> tuple[str, str]:
    return flip.skill, flip.group or flip.task_id


def print_flips(gate: GateResult, console: Console, *, run: str, skill: str | None = None, limit: int) -> None:
    """At most ``limit`` flips of the gate of a ``run`` (of one ``skill``), and how many there are beyond."""
    counts = [c for c in gate.flip_counts if skill in (None, c.skill)]
    flips = worst_group_first([flip for flip in gate.flips if skill in (None, flip.skill)])
    broken = sum(flip.direction == "broken" for flip in flips)
    fixed = len(flips) - broken
    if counts:
        broken, fixed = sum(c.broken for c in counts), sum(c.fixed for c in counts)
    where = f" of {wording.one_line(skill)}" if skill else ""
    if not broken + fixed:
        console.print(Text(f"No greedy answer{where} changed sides."))
        return
    console.print(Text(f"{broken} broken (right before, wrong now), {fixed} fixed{where}; the worst group first."))
    console.print(_table(flips[:limit], console.width))
    if broken + fixed > len(flips[:limit]):
        beyond = broken + fixed - len(flips[:limit])
        hint = "" if len(flips) <= limit else " (--limit shows more)"
        unlisted = broken + fixed - len(flips)
        where = f"; {unlisted} of them are in gate/results.jsonl only" if unlisted else ""
        console.print(Text(f"{beyond} more{hint}{where}."))
    if flips:
        command = explain_command(flips[0].task_id, run)
        console.print(Text(f"One of them in full: {wording.one_line(command)}"), soft_wrap=True)


def _table(flips: Sequence[Flip], width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("change", no_wrap=True, width=6)
    table.add_column("task", no_wrap=True, width=12)
    room = width - 25
    table.add_column("skill, group", overflow="ellipsis", no_wrap=True, max_width=room // 2)
    table.add_column("right", overflow="ellipsis", no_wrap=True, max_width=room // 5)
    table.add_column("now", overflow="ellipsis", no_wrap=True, max_width=room - room // 2 - room // 5)
    names = wording.short_names(list(dict.fromkeys(flip.skill for flip in flips)))
    for flip in flips:
        group = f", {name}" if (name := wording.group_name(flip.group)) else ""
        style = "red" if flip.direction == "broken" else "green"
        cells = [f"{names[flip.skill]}{group}", flip.reference, flip.after]
        table.add_row(
            Text(flip.direction, style=style),
            Text(wording.one_line(flip.task_id[:12])),
            *(Text(wording.one_line(cell)) for cell in cells),
        )
    return table
