"""A draft of a skill: whose it is; proved, written and told of. What ``ilab rft import`` and ``taxonomy new`` share."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from rft_ilab.cli.failures import EXIT_ERROR

if TYPE_CHECKING:
    from rft_ilab.pipeline.importing import Imported
    from rft_ilab.skills.importing.draft import Draft, ImportRefused


def bring(
    taxonomy: Path, name: str, draft: Callable[[], Draft], files: Sequence[str], waivers: Path | None, force: bool,
    dry_run: bool,
) -> None:  # fmt: skip
    """Make the draft, prove and write it, and say so; or say what is to be repaired and leave with exit code 2.

    ``files`` must not be there without ``force``, which is found out before anything is read.
    """
    from rft_ilab.pipeline.importing import bring_in
    from rft_ilab.skills.importing.draft import ImportRefused
    from rft_ilab.skills.leaf import free_place

    free_place(taxonomy, name, files, force=force)
    try:
        made = draft()
        made.waivers = waivers
        told(bring_in(taxonomy, name, made, force=force, dry_run=dry_run), name, dry_run)
    except ImportRefused as refused:
        refuse(refused)


def contributor(taxonomy: Path) -> str:
    """git's user.name, else the name of who is logged in."""
    from rft_ilab.skills.gitobjects import git

    try:
        return git(taxonomy, "config", "user.name") or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def told(imported: Imported, name: str, dry_run: bool) -> None:
    """Say what was written and decided on stdout, and lint's warnings on stderr."""
    parts = ", ".join(f"{imported.splits.get(split, 0)} {split}" for split in ("train", "val", "test"))
    done = "would write" if dry_run else "wrote"
    click.echo(f"{done} {imported.leaf}: {imported.tasks} tasks ({parts}), {imported.seeds} seed examples")
    lines([f"  {note}" for note in imported.notes], err=False)
    lines([str(finding) for finding in imported.warnings])
    if not dry_run:
        click.echo(f"next: ilab taxonomy lint --skill {name}")


def refuse(refused: ImportRefused) -> NoReturn:
    """Print every problem with its file and line, and leave with exit code 2."""
    from rft_ilab.grading.proof.golden import Finding

    lines([str(Finding.of(problem, Path("."))) for problem in refused.problems])
    count = len(refused.problems)
    click.echo(f"{count} error{'s' * (count != 1)}; nothing was written", err=True)
    raise click.exceptions.Exit(EXIT_ERROR)


def lines(texts: Sequence[str], err: bool = True) -> None:
    """Print texts that quote foreign files: one line each, without what a terminal would obey."""
    from rft_ilab.report.wording import visible

    for text in texts:
        click.echo(" ".join(visible(text).splitlines()), err=err)
