"""``ilab model rft``."""

from __future__ import annotations

from typing import Any

import click

from rft_ilab.cli import engine, options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import conclude


@click.command()
@options.start_options
@engine.engine_options
@click.pass_context
@handled
def rft(ctx: click.Context, **wishes: Any) -> None:
    """Tune a model on what its graders reward.

    Checks first whether the tasks give a training signal at all, then warms up on verified answers (sampled now unless
    the run has them) and improves the model with GRPO. The best checkpoint is chosen on the validation split.
    Prints the directory of the tuned model. Ctrl-C saves; the same command with --run resumes.

    With --engine open-instruct all weights are trained by Open-Instruct, on all training tasks (those with signal, if
    the run has verified data), without a warm start.
    """
    from rft_ilab import pipeline

    site, dry_run = engine.take_site(ctx, wishes)
    request = options.start_request(ctx, site=site, **wishes)
    if dry_run:
        engine.rehearse(request)
        return
    model = pipeline.train(request, console=options.progress())
    if site is None:
        click.echo(model)
        return
    conclude(ctx, request.run, pipeline.regress(request, console=options.progress()))
