"""The report on a pull request as GitHub-flavoured Markdown: for a job's page, and for a comment.

The verdict comes first. Text of strangers is escaped as :mod:`rft_ilab.report.markdown` does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rft_ilab.report import wording
from rft_ilab.report.markdown import block, escape, gate_lines, inline
from rft_ilab.report.pull import Note, PullReport, Sample, in_turns

MOST = 20  # findings, files


def pull_markdown(report: PullReport) -> str:
    """The whole report; ends with a line feed."""
    what = "precheck: " if report.precheck else ""
    lines = [f"## {report.outcome}: {what}{escape(report.headline)}", ""]
    lines += [f"- {escape(reason)}" for reason in report.reasons]
    lines += ["", *_loud(report), *_ignored(report), *_content(report), *_findings(report), *_self_tests(report)]
    lines += [*_signal(report), *_power(report), *_samples(report.samples)]
    if report.run is not None and report.run.gate is not None:
        lines += ["### Gate", "", *gate_lines(report.run, report.run.gate)]
    lines += [*_cost(report), "### Again", "", "The same verdict from the same commits:", "", block(report.command), ""]
    return "\n".join(lines)


def _loud(report: PullReport) -> Iterator[str]:
    if not report.loud:
        return
    yield from ("### Look at these files yourself", "")
    yield "Tools act on them once they are merged. Here they had no influence."
    yield from ("", *_noted(report.loud), "")


def _ignored(report: PullReport) -> Iterator[str]:
    if not report.ignored:
        return
    yield from ("### Ignored: edits of what judges", "")
    yield f"Graders, test tasks, settings and baselines are those of {escape(report.base)}. The verdict is what it"
    yield from ("would be without these edits; whether to merge them is for a person to decide.", "")
    yield from (*_noted(report.ignored), "")


def _content(report: PullReport) -> Iterator[str]:
    yield from ("### What it changes", "")
    base, head = (commit[:12] for commit in (report.base_commit, report.head_commit))
    yield f"- from {escape(report.base)} (`{base}`) to `{head}`"
    yield from (f"- {escape(skill)}: {what}" for skill, what in _most(list(report.skills.items())))
    if not report.skills:
        yield "- no skill"
    for name in _most(report.plain):
        yield f"- {escape(name)}: a leaf without grader or tasks, for `ilab taxonomy diff`"
    if report.others:
        yield f"- {wording.count(report.others, 'other file')}, not read"
    yield ""


def _findings(report: PullReport) -> Iterator[str]:
    yield from ("### Lint", "")
    yield from (*_noted(report.findings), "") if report.findings else ("Nothing found.", "")


def _noted(notes: Sequence[Note]) -> Iterator[str]:
    telling = {id(note) for note in in_turns(notes)[:MOST]}
    for note in (note for note in notes if id(note) in telling):
        place = f"{note.file}:{note.line}" if note.line else note.file
        fix = f" {escape(f'({note.fix})')}" if note.fix else ""
        mark = "**error** " if note.severity == "error" else ""
        text = note.message if len(note.message) <= 400 else f"{note.message[:400]} ..."
        yield f"- {mark}{escape(place)}: {escape(text)}{fix}"
    if len(notes) > MOST:
        yield f"- and {len(notes) - MOST} more"


def _self_tests(report: PullReport) -> Iterator[str]:
    if not report.self_tests:
        return
    yield from ("### Self-test", "", "What passes and should not, tried before a model finds it.", "")
    yield "| skill | grader | references accepted | probes withstood | mutants refused | ms | result |"
    yield "|---|---|--:|--:|--:|--:|---|"
    for test in report.self_tests:
        cells = [escape(test.skill), escape(test.grader), f"{test.references - test.refused} of {test.references}"]
        cells += [f"{test.probes - test.fooled} of {test.probes}", wording.percent(test.mutants)]
        cells += ["n/a" if test.median_ms is None else f"{test.median_ms:.2g}"]
        yield f"| {' | '.join([*cells, '**FAIL**' if test.errors else 'ok'])} |"
    yield ""


def _signal(report: PullReport) -> Iterator[str]:
    if not report.signals:
        return
    k = report.signals[0].signal.samples
    yield from (
        "### Signal",
        "",
        "What the base model does on training tasks, new ones first: does it know this already, can it learn it?",
        "",
    )
    yield f"| skill | prompt | tasks | pass@1 | pass@{k} | all right | all wrong | groups expected mixed |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for row in report.signals:
        of = row.signal
        shares = (of.pass_at_1, of.pass_at_k, of.all_right, of.all_wrong)
        cells = [escape(of.skill), row.prompt, str(of.tasks), *map(wording.percent, shares)]
        yield f"| {' | '.join([*cells, f'{wording.percent(of.expected_mixed)} of {of.group_size}'])} |"
    if errors := sum(row.signal.errors for row in report.signals):
        yield from ("", f"Not graded, and in none of these numbers: {wording.count(errors, 'answer')}.")
    yield ""
    for row in report.signals:
        if row.signal.per_class and row.prompt == report.signals[0].prompt:
            shares_of = row.signal.per_class.items()
            shown = ", ".join(f"{escape(name)} {wording.percent(share)}" for name, share in shares_of)
            yield from (f"pass@1 by class, {escape(row.signal.skill)}: {shown}", "")


def _power(report: PullReport) -> Iterator[str]:
    if not report.power:
        return
    yield from (
        "### Power",
        "",
        "What the gate can show with the test tasks that there are: a plan, if a target gains what is asked",
        "and nothing else changes.",
        "",
    )
    yield "| skill | tier | test tasks | groups | points asked | chance of PASS | tasks needed for 80% |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for row in report.power:
        asked = f"{'+' if row.tier == 'target' else '-'}{100 * row.asked:.1f}"
        cells = [escape(row.skill), row.tier, str(row.tasks), str(row.groups), asked, f"{100 * row.chance:.0f}%"]
        yield f"| {' | '.join([*cells, '> 1,000,000' if row.needed is None else f'{row.needed:,}'])} |"
    yield ""


def _samples(samples: Sequence[Sample]) -> Iterator[str]:
    if not samples:
        return
    yield "<details>"
    yield f"<summary>{wording.count(len(samples), 'sample row')}, with what the base model says</summary>"
    for sample in samples:
        said = {True: "right", False: "wrong", None: "not graded"}[sample.passed]
        yield f"<h4><code>{inline(sample.skill)}</code></h4>"
        yield f"<p>Asked:</p>{block(sample.prompt)}<p>Right answer:</p>{block(sample.reference)}"
        yield f"<p>The base model, {said}:</p>{block(sample.answer)}<p>Grader:</p>{block(sample.reason or 'no reason')}"
    yield from ("</details>", "")


def _cost(report: PullReport) -> Iterator[str]:
    spent = ", ".join(f"{name} {wording.seconds(value)}" for name, value in report.seconds.items())
    yield from ("### Cost", "", f"- here: {spent}")
    if report.run is not None:
        yield f"- the run, also what was done in an earlier try: {wording.cost_sentence(report.run)}"
    yield ""


def _most(items: Iterable[tuple[str, str]] | Sequence[str]) -> Iterator:  # type: ignore[type-arg]
    for number, item in enumerate(items):
        if number == MOST:
            return
        yield item
