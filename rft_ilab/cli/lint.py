"""``ilab taxonomy lint``."""

from __future__ import annotations

from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import EXIT_ERROR, handled


@click.command()
@options.taxonomy_option
@click.option("--skill", "skills", metavar="SKILL", multiple=True, help="Check this skill only; may be repeated.")
@click.option(
    "--changed",
    "ref",
    metavar="REF",
    help="Check only what differs from where this branch left REF, e.g. origin/main: changed skills, and those whose "
    "shared grader or table in rft.toml changed. Uncommitted and new files count.",
)
@click.option(
    "--fix",
    is_flag=True,
    help="First repair the style of the files that are checked: line ends, white space, blank lines, layout and key "
    "order of JSON. What they say stays the same.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "github")),
    default="text",
    show_default=True,
    help="One line a finding, one JSON list, or annotations for a workflow run of GitHub.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.pass_context
@handled
def lint(
    ctx: click.Context,
    taxonomy_path: Path,
    skills: tuple[str, ...],
    ref: str | None,
    fix: bool,
    form: str,
    as_json: bool,
) -> None:
    """Check skills, tasks and graders without a model.

    Every grader must load, accept the reference answer of every task of its skill, pass its own golden cases, and
    refuse what no honest answer looks like: a quick part of what `ilab rft grader-test` tries. Findings are printed as
    `file:line: severity: message (repair)`.

    Exit code: 0 no errors (warnings allowed), 2 errors.
    """
    from rft_ilab.grading.cage.pool import workers
    from rft_ilab.grading.proof.lint import lint_taxonomy, shared_files
    from rft_ilab.report.findings import render
    from rft_ilab.report.wording import count, one_line
    from rft_ilab.skills.gitobjects import git
    from rft_ilab.skills.restyle import repair, untidy_files
    from rft_ilab.skills.tree import leaf_names

    if ref is not None and skills:
        raise click.UsageError("--changed and --skill exclude each other")
    settings = options.load_settings(taxonomy_path)
    only: tuple[str, ...] | None = skills or None
    shared: frozenset[str] = frozenset()
    if ref is not None:
        only, shared = _changed(taxonomy_path, ref)
    if fix:
        names = leaf_names(taxonomy_path)
        chosen = names if only is None else [name for name in only if name in names]
        for found in untidy_files(taxonomy_path, chosen, list(shared_files(taxonomy_path, only, shared))):
            repair(taxonomy_path, found)
            click.echo(one_line(f"fixed {found.file}: {found.problem}"), err=True)
    findings = lint_taxonomy(taxonomy_path, settings, only, shared=shared, style=True, workers=workers())
    errors = sum(finding.severity == "error" for finding in findings)
    root = Path(git(taxonomy_path, "rev-parse", "--show-toplevel") or ".")
    if shown := render(findings, "json" if as_json else form, root):
        click.echo(shown)
    if not as_json and form != "json":
        click.echo(f"{count(errors, 'error')}, {count(len(findings) - errors, 'warning')}", err=True)
    ctx.exit(EXIT_ERROR if errors else 0)


def _changed(taxonomy: Path, ref: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Skills and shared graders to check; says on stderr which. Raises SkillError, see ``find_changes``."""
    from rft_ilab.errors import SkillError
    from rft_ilab.skills.changes import find_changes
    from rft_ilab.skills.tree import ROOT, leaf_names

    names: tuple[str, ...] = ()
    try:
        names = leaf_names(taxonomy)
    except SkillError:
        if not (taxonomy / ROOT).is_dir():
            raise
    changes = find_changes(taxonomy, ref, names)
    told = [f"{len(changes.skills)} of {len(names)} skills changed since {ref}"]
    told += [f"gone: {', '.join(map(ascii, changes.gone))}"] if changes.gone else []
    click.echo("; ".join(told), err=True)
    return changes.skills, changes.graders
