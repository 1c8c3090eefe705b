"""``ilab rft compare-controls``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.config import GateSettings

if TYPE_CHECKING:
    from rft_ilab.pipeline.controls import Comparison
    from rft_ilab.regress.statistics import Difference


@click.command("compare-controls")
@click.argument("run_name", metavar="RUN")
@click.argument("control_names", metavar="CONTROL...", nargs=-1, required=True)
@click.pass_context
@handled
def compare_controls(ctx: click.Context, run_name: str, control_names: tuple[str, ...]) -> None:
    """Does the real reward beat its controls?

    Compares what RUN and each CONTROL (trained with `--control` and otherwise the same settings) answer to the target's
    validation tasks: the gain of each over the base and after the warm start, and the paired difference between them.
    Both were selected on these tasks by the same rule, so this compares rewards; how good a model is, its gate says.

    Exit code: 0 if the run beats every control, 1 if that is not shown, 2 on an error.
    """
    from rft_ilab.pipeline.controls import compare_controls as compare

    alpha = GateSettings().alpha
    found = compare(options.existing_run(run_name), [options.existing_run(name) for name in control_names], alpha)
    for comparison in found:
        click.echo("\n".join(described(comparison, alpha)))
    ctx.exit(0 if all(finding == "beats" for c in found for _, _, finding in c.against) else 1)


def described(comparison: Comparison, alpha: float) -> list[str]:
    """One target: a line an arm, then a plain sentence a control."""
    lines = [
        f"{comparison.skill}, {comparison.tasks} validation tasks; points, {100 * (1 - alpha):g}% intervals",
        f"  {'':24} {'accuracy':>8}  {'over the base':>22}  {'after the warm start':>22}",
    ]
    for arm, gain, later in comparison.gains:
        name = arm.control or "real reward"
        lines.append(f"  {name:24} {100 * gain.after:7.1f}%  {_points(gain):>22}  {_points(later):>22}")
    words = {
        "beats": "the real reward beats it",
        "worse": "the real reward does WORSE than it",
        "not shown": "NOT shown that the real reward beats it",
    }
    lines += [
        f"  against {arm.control} ({arm.directory.name}): {_points(difference)}: {words[finding]}"
        for arm, difference, finding in comparison.against
    ]
    return lines


def _points(d: Difference) -> str:
    return f"{100 * d.delta:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
