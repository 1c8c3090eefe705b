"""The proof of graders in a terminal: one row a grader, and one row a probe for those who ask.

Every text of a task or a probe is shown escaped, so that none can move the cursor. Makes sense without colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rft_ilab.grading.proof.evidence import Result
from rft_ilab.grading.proof.prove import Proof
from rft_ilab.grading.sample import shown
from rft_ilab.report import wording

STYLES = {"ok": "green", "error": "red", "warning": "yellow", "waived": "cyan", "info": "dim", "n/a": "dim"}
WORDS = {"error": "FAIL", "warning": "warn"}


def print_proofs(proofs: Sequence[Proof], console: Console, *, details: bool) -> None:
    """The summary of all graders; before it, with ``details``, the probes of each."""
    for proof in proofs if details else ():
        console.print(_probes(proof))
        console.print()
    console.print(_summary(proofs))
    for proof in proofs:
        for result in proof.results:
            if result.outcome == "waived" and not details:
                console.print(Text(wording.one_line(f"{proof.name}: {result.name} waived: {result.note}")))
        for operator, reason in proof.waived_mutants.items():
            console.print(Text(wording.one_line(f"{proof.name}: mutants by {operator} waived: {reason}")))


def _table(title: str, *columns: tuple[str, bool]) -> Table:
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name, number in columns:
        table.add_column(name, justify="right" if number else "left", no_wrap=number)
    return table


def _summary(proofs: Sequence[Proof]) -> Table:
    columns = ("grader", False), ("type", False), ("accepted", True), ("probes", True), ("mutants", True)
    table = _table("", *columns, ("ms p50/p99", True), ("result", True))
    for column in table.columns[:2]:
        column.overflow = "fold"
    for proof in proofs:
        counts = Counter(result.outcome for result in proof.results)
        tried = len(proof.results) - counts["waived"] - counts["n/a"]
        times = proof.latency_ms
        outcome = "error" if proof.errors else "warning" if proof.findings else "ok"
        table.add_row(
            Text(wording.one_line(proof.name)),
            proof.kind,
            f"{proof.references - proof.refused}/{proof.references}",
            f"{tried - counts['error']}/{tried}",
            wording.percent(proof.mutation.score),
            f"{times['median']:.2g}/{times['p99']:.2g}" if times else "n/a",
            Text(WORDS.get(outcome, outcome), style=STYLES[outcome]),
        )
    return table


def _probes(proof: Proof) -> Table:
    columns = ("probe", False), ("expects", False), ("tasks", True), ("worst", True), ("result", True), ("text", False)
    table = _table(wording.one_line(proof.name), *columns)
    for result in proof.results:
        table.add_row(
            result.name,
            result.expects,
            str(result.tasks or ""),
            "" if result.score is None else f"{result.score:.2g}",
            Text(WORDS.get(result.outcome, result.outcome), style=STYLES[result.outcome]),
            Text(_said(result), overflow="fold"),
        )
    for operator, tried in proof.mutation.tried.items():
        killed = proof.mutation.killed.get(operator, 0)
        outcome = "ok" if killed == tried else "warning"
        result_text = Text(WORDS.get(outcome, outcome), style=STYLES[outcome])
        table.add_row(f"mutant-{operator}", "low", str(tried), "", result_text, f"{killed} of {tried} refused")
    return table


def _said(result: Result) -> str:
    """The reason of a waiver, the text that was paid for, or a note."""
    if result.outcome in ("error", "warning") and result.text:
        return shown(result.text)
    return wording.one_line(result.note)
