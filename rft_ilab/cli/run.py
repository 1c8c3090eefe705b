"""``ilab rft run``."""

from __future__ import annotations

from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import conclude


@click.command()
@options.stacked(
    options.taxonomy_option,
    options.run_option,
    options.model_option,
    options.endpoint_option,
    options.target_option,
    options.training_options,
    options.report_option,
    options.control_option,
    options.history_option,
)
@click.pass_context
@handled
def run(
    ctx: click.Context,
    taxonomy_path: Path,
    run_name: str | None,
    model: Path | None,
    endpoint: str | None,
    targets: tuple[str, ...],
    report_to: str | None,
    control: str | None,
    history: Path | None,
    **train: float | None,
) -> None:
    """Do all of it: verified data, training, gate and report.

    The same as `ilab data verify`, `ilab model rft`, `ilab model regress` and `ilab rft report` on one run directory.
    Finished stages are not repeated; Ctrl-C saves, and the same command with --run resumes.

    Exit code: 0 PASS, 1 FAIL (the skills are named), 2 INCONCLUSIVE or an error.
    """
    from rft_ilab import pipeline

    directory = options.startable_run(ctx, run_name, control)
    request = options.request_for(
        taxonomy_path,
        directory,
        model=model,
        endpoint=endpoint,
        targets=targets,
        control=control,
        history=history,
        train=train,
        tracking={"report_to": report_to},
    )
    conclude(ctx, directory, pipeline.run_all(request, console=options.progress()))
