"""``ilab rft plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.errors import RunError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rft_ilab.pipeline.plan import SkillPlan

ANY_WIDTH = 1000  # columns in which a table is measured
SHARE = click.FloatRange(min=0.0, max=1.0)


@click.command()
@options.taxonomy_option
@click.option(
    "--power",
    type=click.FloatRange(min=0.5, max=0.999),
    default=0.8,
    show_default=True,
    help="Chance of the right verdict that is planned for.",
)
@click.option(
    "--discordance",
    type=SHARE,
    default=0.1,
    show_default=True,
    help="Assumed share of test tasks that flip, half of them each way, though nothing got better or worse.",
)
@click.option(
    "--icc",
    type=SHARE,
    default=0.5,
    show_default=True,
    help="Assumed correlation of the flips within a group: 0 unrelated, 1 all of a group or none.",
)
@click.option(
    "--run",
    "run_name",
    metavar="NAME|PATH",
    help="Take the discordance of watched skills from the verdict of this run, or of the `latest`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as one JSON object.")
@handled
def plan(
    taxonomy_path: Path, power: float, discordance: float, icc: float, run_name: str | None, as_json: bool
) -> None:
    """What could the gate show with these test tasks, and how many are missing?

    Reads the taxonomy alone; no model is asked. The numbers are plans: they hold as far as the assumptions do.

    Exit code: 0, or 2 on an error.
    """
    from rft_ilab.pipeline import plan as planning

    settings = options.load_settings(taxonomy_path)
    wish = planning.Wish(power=power, discordance=discordance, icc=icc)
    rows = planning.plan(taxonomy_path, settings, wish, _verdict(run_name))
    if as_json:
        click.echo(json.dumps(planning.as_json(rows, wish, settings.gate.alpha), indent=1))
        return
    from rft_ilab.cli.console import LastingConsole

    console = LastingConsole()
    print_table(rows, power, console)
    click.echo(f"Plans, not measurements: they assume that the flips of a group correlate at {icc:g}.")
    measured = "* measured. " if any(row.measured for row in rows) else ""
    click.echo(measured + "docs/statistics.md says how they are made.")


def _verdict(run_name: str | None) -> Path | None:
    if run_name is None:
        return None
    run = options.existing_run(None if run_name == "latest" else run_name)
    verdict = run / "gate" / "verdict.json"
    if not verdict.exists():
        raise RunError("no verdict yet", where=run, fix="finish the run with: ilab model regress")
    return verdict


def print_table(rows: list[SkillPlan], power: float, console: Console) -> None:
    """With full names and room between columns where the terminal is wide enough. One that is narrower than the narrow
    table wraps its lines, but loses no number."""
    wide = console.options.update_width(ANY_WIDTH)
    shown = table(rows, power)
    if console.measure(shown, options=wide).maximum > console.width:
        shown = table(rows, power, narrow=True)
        console.width = max(console.width, console.measure(shown, options=wide).maximum)
    console.print(shown)


def table(rows: list[SkillPlan], power: float, *, narrow: bool = False) -> Table:
    """Points are percentage points; names of skills come from a taxonomy that may be anybody's."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from rft_ilab.report.wording import short_names

    skills = [row.skill for row in rows]
    names = short_names(skills) if narrow else {skill: skill for skill in skills}
    padding = (0, 0 if narrow else 1, 0, 0)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=padding)
    shown.add_column("skill", no_wrap=True)
    shown.add_column("tier", no_wrap=True)
    counts = ("tasks", "groups", "flips", "points\nasked", "PASS\nchance")
    for heading in (*counts, f"shown\nat {power:.0%}", "tasks\nneeded", "tasks\nto add"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        gain = row.tier == "target"
        shown.add_row(
            Text(names[row.skill]),
            row.tier,
            str(row.tasks),
            str(row.groups),
            f"{100 * row.discordance:.1f}%{'*' if row.measured else ''}",
            f"{'+' if gain else '-'}{100 * row.asked:.1f}",
            f"{100 * row.chance:.0f}%",
            "none" if row.detectable is None else f"{'+' if gain else '-'}{100 * row.detectable:.1f}",
            "> 1,000,000" if row.needed is None else f"{row.needed:,}",
            "?" if row.lacking is None else f"{row.lacking:,}",
        )
    return shown
