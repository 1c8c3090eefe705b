"""``ilab model rft``."""

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
    options.training_options,
    options.report_option,
    options.control_option,
)
@click.pass_context
@handled
def rft(
    ctx: click.Context,
    taxonomy_path: Path,
    run_name: str | None,
    model: Path | None,
    endpoint: str | None,
    targets: tuple[str, ...],
    report_to: str | None,
    control: str | None,
    **train: float | None,
) -> None:
    """Tune a model on what its graders reward.

    Checks first whether the tasks give a training signal at all, then warms up on verified answers (sampled now unless
    the run has them) and improves the model with GRPO. The best checkpoint is chosen on the validation split.
    Prints the directory of the tuned model. Ctrl-C saves; the same command with --run resumes.
    """
    from rft_ilab import pipeline

    run = options.startable_run(ctx, run_name, control)
    request = options.request_for(
        taxonomy_path,
        run,
        model=model,
        endpoint=endpoint,
        targets=targets,
        control=control,
        train=train,
        tracking={"report_to": report_to},
    )
    click.echo(pipeline.train(request, console=options.progress()))
