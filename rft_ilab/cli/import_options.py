"""Options that the ``ilab rft import`` commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from rft_ilab.cli import options

SOURCE = click.Path(path_type=Path, exists=True, dir_okay=False)
to_option = click.option(
    "--to", "name", metavar="SKILL", required=True, help="Skill to write, e.g. healthcare/refill_dose."
)
created_by_option = click.option(
    "--created-by", metavar="NAME", help="Who contributes the skill. [default: git's user.name]"
)
licence_option = click.option(
    "--license", "licence", metavar="NAME", default="not stated", show_default=True, help="Licence of the data."
)
force_option = click.option("--force", is_flag=True, help="Replace the files of a skill that is there.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Check everything and write nothing.")
waivers_option = click.option(
    "--waivers",
    type=SOURCE,
    help="File that says why a try to cheat the grader does not apply; becomes grader.waivers.json.",
)
common_options: Callable[[options.F], options.F] = options.stacked(
    click.option("--limit", type=click.IntRange(min=1), metavar="ROWS", help="Take only the first rows of each file."),
    created_by_option,
    licence_option,
    waivers_option,
    force_option,
    dry_run_option,
)
KINDS = ("date", "number", "json", "label", "text", "exact")


def check_grader(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A kind of grader or a file. Raises BadParameter."""
    if value and value not in KINDS and not Path(value).is_file():
        raise click.BadParameter(f"{value!r} is neither a file nor one of {', '.join(KINDS)}")
    return value


def check_delimiter(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """One character that can stand between cells. Raises BadParameter."""
    value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if value is not None and (len(value) != 1 or value in '"\r\n\0'):
        raise click.BadParameter(f"{value!r} is no single character that can stand between cells")
    return value


grader_option = click.option(
    "--grader",
    metavar="KIND|FILE",
    callback=check_grader,
    help=f"Grader: {', '.join(KINDS)}, or a file with a grader. [default: the kind that fits the answers]",
)
