"""A history of verdicts in a terminal: one line a verdict, one line a skill with its trend."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rft_ilab.report import wording
from rft_ilab.report.history import Entry, History, SuiteVerdict
from rft_ilab.report.terminal import STYLES, WIDE

BARS = "▁▂▃▄▅▆▇█"
LONG_NAME = 22  # columns of a candidate's name that are kept together
TREND = 24  # verdicts in a trend line, the newest
GAP = "·"
MARKS = {"PASS": "P", "FAIL": "F", "INCONCLUSIVE": "?"}


def print_history(history: History, console: Console, *, total: int) -> None:
    """``total``: verdicts in the file, of which ``history`` has the last."""
    names = wording.short_names(history.skills)
    table = _table()
    roomy = console.width >= WIDE
    table.add_column("time (UTC)" if roomy else "date (UTC)", no_wrap=True)
    table.add_column("commit", no_wrap=True)
    candidates = [wording.one_line(entry.candidate or entry.run) for entry in history.entries]
    longest = max((len(name) for name in candidates), default=0)
    table.add_column("candidate", overflow="fold", min_width=max(12, min(longest, LONG_NAME)))
    table.add_column("outcome", no_wrap=True)
    table.add_column("what decided", overflow="fold")
    for entry, candidate in zip(history.entries, candidates, strict=True):
        table.add_row(
            entry.time[:16].replace("T", " ") if roomy else entry.time[:10],
            Text(wording.one_line(entry.name if entry.commit else "no git")),
            Text(candidate),
            Text(entry.outcome, style=STYLES[entry.outcome]),
            Text(wording.one_line(decided(entry, names))),
        )
    console.print(table)
    console.print()
    console.print(_trends(history))
    console.print()
    shown = len(history.entries)
    more = f"; the last {shown} of {total}" if shown < total else ""
    console.print(Text(f"{wording.count(shown, 'verdict')} in the order of commits{more}. " + LEGEND))
    if history.damaged:
        note = f"Note: {wording.count(history.damaged, 'line')} of the file without a verdict."
        console.print(Text(note, style="yellow"))


LEGEND = "Trend: greedy accuracy of the candidate from 0% to 100%; outcomes: P pass, F fail, ? inconclusive."


def decided(entry: Entry, names: dict[str, str]) -> str:
    """The skills that spoil the verdict; of a PASS, what the targets gained and the worst of the others."""
    same = "same evidence as before; " if entry.again else ""
    if entry.outcome != "PASS":
        bad = [s for s in entry.suites if s.outcome == entry.outcome and s.tier != "advisory"]
        return same + ("; ".join(_change(s, names) for s in bad) or "no skill was judged")
    targets = [_change(s, names) for s in entry.suites if s.target]
    watched = [s for s in entry.suites if not s.target and s.tier != "advisory" and s.delta is not None]
    worst = min(watched, key=lambda s: s.delta if s.delta is not None else 0.0, default=None)
    return same + "; ".join([*targets, *([f"worst other: {_change(worst, names)}"] if worst else [])])


def _change(suite: SuiteVerdict, names: dict[str, str]) -> str:
    return f"{names.get(suite.skill, suite.skill)} {wording.points(suite.delta)}"


def _trends(history: History) -> Table:
    names = wording.short_names(history.skills)
    table = _table()
    table.add_column("skill", overflow="fold", min_width=14)
    table.add_column("trend", no_wrap=True)
    for name in ("first", "last", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("outcomes", no_wrap=True)
    for skill in history.skills:
        suites = [entry.suite(skill) for entry in history.entries][-TREND:]
        measured = [s.after for s in suites if s is not None and s.after is not None]
        first, last = (measured[0], measured[-1]) if measured else (None, None)
        table.add_row(
            Text(wording.one_line(names[skill])),
            sparkline([None if s is None else s.after for s in suites]),
            wording.percent(first),
            wording.percent(last),
            wording.points(None if first is None or last is None else last - first),
            Text("".join(GAP if s is None else MARKS[s.outcome] for s in suites)),
        )
    return table


def sparkline(values: Sequence[float | None]) -> str:
    """Bars from 0 to 1, a dot where there is no value.

    >>> sparkline([0.0, 0.5, None, 1.0])
    '▁▅·█'
    """
    top = len(BARS) - 1
    return "".join(GAP if v is None else BARS[min(int(max(v, 0.0) * len(BARS)), top)] for v in values)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
