"""``ilab data verify``."""

from __future__ import annotations

from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled


@click.command()
@options.stacked(
    options.taxonomy_option,
    options.run_option,
    options.model_option,
    options.endpoint_option,
    options.target_option,
    options.seed_option,
    options.tasks_option,
    options.samples_option,
)
@click.pass_context
@handled
def verify(
    ctx: click.Context,
    taxonomy_path: Path,
    run_name: str | None,
    model: Path | None,
    endpoint: str | None,
    targets: tuple[str, ...],
    seed: int | None,
    tasks: int | None,
    samples: int | None,
) -> None:
    """Sample candidate answers and keep what the grader accepts.

    The model answers training tasks with the skill's seed examples as demonstrations. Accepted answers go to
    data/verified.jsonl of the run as chat messages, as `ilab model train` reads them; data/ledger.jsonl says for every
    candidate why it was kept or not. Prints the path of the verified data.
    """
    from rft_ilab import pipeline

    run = options.startable_run(ctx, run_name)
    tables = {"train": {"seed": seed}, "data": {"tasks": tasks, "samples": samples}}
    request = options.request_for(taxonomy_path, run, model=model, endpoint=endpoint, targets=targets, **tables)
    click.echo(pipeline.verify_data(request, console=options.progress()))
