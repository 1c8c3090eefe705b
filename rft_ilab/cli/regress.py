"""``ilab model regress``."""

from __future__ import annotations

from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import conclude
from rft_ilab.cli.outputs import output_options


@click.command()
@options.taxonomy_option
@options.latest_run_option
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Candidate: a Hugging Face model directory. [default: the model of the run]",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="Model directory to compare with. [default: the model that the run started from]",
)
@options.target_option
@options.samples_option
@output_options
@options.history_option
@click.pass_context
@handled
def regress(
    ctx: click.Context,
    taxonomy_path: Path,
    run_name: str | None,
    model: Path | None,
    baseline: Path | None,
    targets: tuple[str, ...],
    samples: int | None,
    history: Path | None,
    **outputs: Path | None,
) -> None:
    """Judge a tuned model: is the target better, and is no other skill worse?

    Compares candidate and baseline on the test tasks of every skill, task by task. Answers are cached, so that
    repeating costs only what changed.

    Exit code: 0 PASS, 1 FAIL (the skills are named), 2 INCONCLUSIVE or an error.
    """
    from rft_ilab import pipeline

    run = options.existing_run(run_name)
    request = options.request_for(
        taxonomy_path, run, model=baseline, targets=targets, history=history, gate={"samples": samples}
    )
    conclude(ctx, run, pipeline.regress(request, candidate=model, console=options.progress()), **outputs)
