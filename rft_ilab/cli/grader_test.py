"""``ilab rft grader-test``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import EXIT_ERROR, handled


@click.command(name="grader-test")
@click.argument("skills", metavar="[SKILL]...", nargs=-1)
@options.taxonomy_option
@click.option(
    "--grader",
    "grader_file",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Test this grader (.json or .py) instead of the skill's own: on the tasks of SKILL, or without SKILL on the "
    "golden cases beside it.",
)
@click.option(
    "--tasks",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Tasks that the probes are tried on, evenly spread. References are all tried, unless the grader asks a model.",
)
@click.option("--probes", "details", is_flag=True, help="Show every probe. [default: for a single grader only]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@click.pass_context
@handled
def grader_test(
    ctx: click.Context,
    taxonomy_path: Path,
    skills: tuple[str, ...],
    grader_file: Path | None,
    tasks: int,
    details: bool,
    as_json: bool,
) -> None:
    """Try to cheat graders before a model does.

    Each grader must accept every reference and pay nothing for some thirty kinds of answers that are none: empty
    forms, hedges, lists of all labels, instructions to the judge, hostile JSON. Slightly changed references show what
    it overlooks (the mutation score). A probe that does not apply gets a reason in grader.waivers.json beside
    grader.json.

    Exit code: 0 no errors (warnings allowed), 2 errors.
    """
    from rft_ilab.grading.proof import prove
    from rft_ilab.skills.tree import leaf_names

    settings = options.load_settings(taxonomy_path)
    effort = dataclasses.replace(prove.FULL, wide=tasks, narrow=min(prove.FULL.narrow, tasks), mutated=tasks)
    console = options.progress()
    if grader_file and not skills:
        proofs = [prove.prove_file(grader_file, taxonomy_path, effort)]
    else:
        proofs = []
        for name in skills or leaf_names(taxonomy_path):
            with console.status(f"{name} ..."):
                proofs.append(prove.prove_skill(taxonomy_path, name, settings, effort, grader_file))
    findings = [finding for each in proofs for finding in each.findings]
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        report = {"graders": [each.as_dict() for each in proofs], "errors": errors, "warnings": len(findings) - errors}
        click.echo(json.dumps(report, indent=1, default=str))
    else:
        from rft_ilab.cli.console import LastingConsole
        from rft_ilab.cli.prooftable import print_proofs

        print_proofs(proofs, LastingConsole(), details=details or len(proofs) == 1)
        for finding in findings:
            click.echo(str(finding))
        click.echo(f"{errors} errors, {len(findings) - errors} warnings", err=True)
    ctx.exit(EXIT_ERROR if errors else 0)
