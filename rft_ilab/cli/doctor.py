"""``ilab rft doctor``."""

from __future__ import annotations

import click

from rft_ilab.cli.failures import EXIT_ERROR, handled


@click.command()
@handled
def doctor() -> None:
    """Say how strong the sandbox of this machine is, and try it.

    The tier is `cage`, `cage without Landlock`, or `process`, which runs only graders that you trust. Exit code 2 if a
    wall does not hold.
    """
    from rft_ilab.grading.cage.checkup import checkup

    report = checkup()
    for line in report.lines:
        click.echo(line)
    if not report.healthy:
        raise click.exceptions.Exit(EXIT_ERROR)
