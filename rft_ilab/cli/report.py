"""``ilab rft report``."""

from __future__ import annotations

import json

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import write_report


@click.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object and write nothing.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a summary in Markdown and write nothing.")
@click.option("--junit", "as_junit", is_flag=True, help="Print the verdict as JUnit XML and write nothing.")
@handled
def report(run_name: str | None, as_json: bool, as_markdown: bool, as_junit: bool) -> None:
    """Show what a run has learned, and write its report.html.

    RUN is a run directory, by name or path; the latest run if absent. A run without a verdict is shown as far as it
    went, but has no --json and no --junit.
    """
    from rft_ilab.report import load

    run = options.existing_run(run_name)
    if as_json:
        from rft_ilab.report.json_report import json_summary

        click.echo(json.dumps(json_summary(load.load_run(run)), indent=1))
    elif as_markdown:
        from rft_ilab.report.markdown import markdown_summary

        click.echo(markdown_summary(load.load_run(run, require_verdict=False)), nl=False)
    elif as_junit:
        from rft_ilab.report.junit import junit_of

        click.echo(junit_of(load.load_run(run)), nl=False)
    else:
        write_report(run)
