"""``ilab rft history``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.errors import SkillError


@click.command()
@options.taxonomy_option
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Read this file. [default: history.jsonl beside the runs, to which every gate appends]",
)
@click.option("--skill", "skills", metavar="SKILL", multiple=True, help="This skill alone; may be repeated.")
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, help="This many verdicts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, all fields.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page to FILE.")
@handled
def history(
    taxonomy_path: Path, history: Path | None, skills: tuple[str, ...], last: int, as_json: bool, page: Path | None
) -> None:
    """Show the verdicts of the gate over commits, with the trend of every skill.

    In the order of the taxonomy's commits; what git does not know goes by time. A verdict that was given twice at one
    commit on the same evidence is shown once.
    """
    from rft_ilab.cli.console import LastingConsole
    from rft_ilab.report.history import as_json as fields
    from rft_ilab.report.history import load_history
    from rft_ilab.report.history_text import print_history
    from rft_ilab.skills.commits import ranks

    path = history or options.history_file()
    loaded = load_history(path, ranks(taxonomy_path))
    if unknown := set(skills) - set(loaded.skills):
        known = ", ".join(loaded.skills)
        raise SkillError(f"no verdict on a skill {min(unknown)!r}", where=path, fix=f"one of {known}")
    entries = loaded.entries
    if skills:
        chosen = [replace(e, suites=tuple(s for s in e.suites if s.skill in skills)) for e in entries]
        entries = tuple(e for e in chosen if e.suites)
    shown = replace(loaded, entries=entries[-last:])
    if as_json:
        click.echo("\n".join(json.dumps(fields(entry), ensure_ascii=False) for entry in shown.entries))
    else:
        print_history(shown, LastingConsole(), total=len(entries))
    if page:
        from rft_ilab.report.history_html import write_history

        write_history(shown, page)
        click.echo(f"page: {page}", err=True)
