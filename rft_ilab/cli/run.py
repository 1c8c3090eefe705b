"""``ilab rft run``."""

from __future__ import annotations

from typing import Any

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import conclude


@click.command()
@options.start_options
@options.history_option
@click.pass_context
@handled
def run(ctx: click.Context, **wishes: Any) -> None:
    """Do all of it: verified data, training, gate and report.

    The same as `ilab data verify`, `ilab model rft`, `ilab model regress` and `ilab rft report` on one run directory.
    Finished stages are not repeated; Ctrl-C saves, and the same command with --run resumes.

    Exit code: 0 PASS, 1 FAIL (the skills are named), 2 INCONCLUSIVE or an error.
    """
    from rft_ilab import pipeline

    request = options.start_request(ctx, **wishes)
    conclude(ctx, request.run, pipeline.run_all(request, console=options.progress()))
