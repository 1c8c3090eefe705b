"""``ilab model rft``."""

from __future__ import annotations

from typing import Any

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled


@click.command()
@options.start_options
@click.pass_context
@handled
def rft(ctx: click.Context, **wishes: Any) -> None:
    """Tune a model on what its graders reward.

    Checks first whether the tasks give a training signal at all, then warms up on verified answers (sampled now unless
    the run has them) and improves the model with GRPO. The best checkpoint is chosen on the validation split.
    Prints the directory of the tuned model. Ctrl-C saves; the same command with --run resumes.
    """
    from rft_ilab import pipeline

    click.echo(pipeline.train(options.start_request(ctx, **wishes), console=options.progress()))
