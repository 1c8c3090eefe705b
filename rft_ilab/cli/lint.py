"""``ilab taxonomy lint``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import EXIT_ERROR, handled


@click.command()
@options.taxonomy_option
@click.option("--skill", "skills", metavar="SKILL", multiple=True, help="Check this skill only; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON list.")
@click.pass_context
@handled
def lint(ctx: click.Context, taxonomy_path: Path, skills: tuple[str, ...], as_json: bool) -> None:
    """Check skills, tasks and graders without a model.

    Every grader must load, accept the reference answer of every task of its skill, pass its own golden cases, and
    refuse what no honest answer looks like: a quick part of what `ilab rft grader-test` tries. Findings are printed as
    `file:line: severity: message`.

    Exit code: 0 no errors (warnings allowed), 2 errors.
    """
    from rft_ilab.grading.proof.lint import lint_taxonomy

    findings = lint_taxonomy(taxonomy_path, options.load_settings(taxonomy_path), only=skills or None)
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1, default=str))
    else:
        for finding in findings:
            click.echo(str(finding))
        click.echo(f"{errors} errors, {len(findings) - errors} warnings", err=True)
    ctx.exit(EXIT_ERROR if errors else 0)
