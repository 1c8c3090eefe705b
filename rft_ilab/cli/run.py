"""``ilab rft run``."""

from __future__ import annotations

from typing import Any

import click

from rft_ilab.cli import engine, options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import conclude


@click.command()
@options.start_options
@options.history_option
@engine.engine_options
@click.pass_context
@handled
def run(ctx: click.Context, **wishes: Any) -> None:
    """Do all of it: verified data, training, gate and report.

    The same as `ilab data verify`, `ilab model rft`, `ilab model regress` and `ilab rft report` on one run directory.
    Finished stages are not repeated; Ctrl-C saves, and the same command with --run resumes.

    With --engine open-instruct the same as `ilab model rft --engine open-instruct`: verified data are used if the run
    has them, and not made.

    Exit code: 0 PASS, 1 FAIL (the skills are named), 2 INCONCLUSIVE or an error.
    """
    from rft_ilab import pipeline

    site, dry_run = engine.take_site(ctx, wishes)
    request = options.start_request(ctx, site=site, **wishes)
    if dry_run:
        engine.rehearse(request)
        return
    conclude(ctx, request.run, pipeline.run_all(request, console=options.progress()))
