"""How a command ends that has a verdict: report.html, a summary on stdout, the gate's exit code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from rft_ilab.types import EXIT_CODE


def write_report(run: Path) -> None:
    """Write report.html into the run and print the summary on stdout."""
    from rich.console import Console

    from rft_ilab.report import html, load, terminal

    loaded = load.load_run(run, require_verdict=False)
    html.write_html(loaded, run / "report.html")
    terminal.print_summary(loaded, Console())


def conclude(ctx: click.Context, run: Path, verdict: Mapping[str, Any]) -> None:
    """Report what the run shows, then exit 0, 1 or 2 for PASS, FAIL or INCONCLUSIVE."""
    write_report(run)
    ctx.exit(EXIT_CODE[verdict["outcome"]])
