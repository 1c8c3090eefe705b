"""Where a verdict goes beside the terminal: files for CI systems, a directory, the page of a job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rft_ilab.cli.options import stacked

if TYPE_CHECKING:
    from rft_ilab.report.data import RunReport

output_options = stacked(
    click.option(
        "--junit",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write the verdict as JUnit XML: one suite a skill, with its flipped and its ungraded tasks.",
    ),
    click.option(
        "--markdown",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write a summary in Markdown, for a pull request. In GitHub Actions it also goes to the job's page.",
    ),
    click.option(
        "--output-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Write verdict.json, results.jsonl, report.md, report.html and junit.xml into DIR/MODEL.",
    ),
)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What was asked for with :data:`output_options`; None: not asked for."""

    junit: Path | None = None
    markdown: Path | None = None
    output_dir: Path | None = None

    def clear(self) -> None:
        """Remove the files of an earlier verdict: after an error none shall be there that could pass for an answer."""
        for path in (self.junit, self.markdown):
            if path:
                path.unlink(missing_ok=True)

    def write(self, report: RunReport) -> None:
        """Write the files and say so on stderr. Raises DiskError when there is no room."""
        from rft_ilab.report.junit import write_junit
        from rft_ilab.report.markdown import markdown_summary
        from rft_ilab.report.output_dir import write_output_dir
        from rft_ilab.store import write_atomic

        if self.junit:
            write_junit(report, self.junit)
            _say(f"JUnit: {self.junit}")
        if self.markdown:
            write_atomic(self.markdown, markdown_summary(report))
            _say(f"Markdown: {self.markdown}")
        if self.output_dir:
            _say(f"Results: {write_output_dir(report, self.output_dir)}")


def write_job_page(report: RunReport) -> None:
    """In GitHub Actions, append the summary to the job's page. Where that fails the verdict stands all the same."""
    from rft_ilab.errors import DiskError
    from rft_ilab.report.markdown import SUMMARY, append_step_summary

    try:
        if path := append_step_summary(report):
            _say(f"Markdown appended to {path} ({SUMMARY})")
    except (OSError, DiskError) as error:
        _say(f"Warning: no Markdown in {SUMMARY}: {error}")


def _say(line: str) -> None:
    click.echo(" ".join(line.splitlines()), err=True)
