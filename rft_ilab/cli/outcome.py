"""How a command ends that has a verdict: report.html, a summary on stdout, the gate's exit code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rft_ilab.cli.outputs import Outputs, write_job_page
from rft_ilab.types import EXIT_CODE

if TYPE_CHECKING:
    from rft_ilab.report.data import RunReport


def write_report(run: Path) -> RunReport:
    """Write report.html into the run and print the summary on stdout; returns what the run holds."""
    from rft_ilab.cli.console import LastingConsole
    from rft_ilab.report import html, load, terminal

    loaded = load.load_run(run, require_verdict=False)
    html.write_html(loaded, run / "report.html")
    terminal.print_summary(loaded, LastingConsole())
    return loaded


def conclude(ctx: click.Context, run: Path, verdict: Mapping[str, Any], **outputs: Path | None) -> None:
    """Report what the run shows, also where ``outputs`` (see :class:`Outputs`) and GitHub Actions want it; then exit
    0, 1 or 2 for PASS, FAIL or INCONCLUSIVE."""
    report = write_report(run)
    Outputs(**outputs).write(report)
    write_job_page(report)
    ctx.exit(EXIT_CODE[verdict["outcome"]])
