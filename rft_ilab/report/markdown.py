"""The verdict as GitHub-flavoured Markdown, for a pull request or a job summary.

Everything that a skill or a model wrote is hostile here: it may draw pictures from anywhere, and a mention sends mail.
Outside of HTML such text is escaped by :func:`escape`; answers stand in ``<pre>`` by :func:`block`, inside an HTML
block without a blank line, where Markdown is not read and GitHub links and mentions nothing.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rft_ilab.disk import full_disk_named
from rft_ilab.report import wording
from rft_ilab.report.data import RunReport
from rft_ilab.report.flips import worst_group_first
from rft_ilab.report.gate_data import Flip, GateResult
from rft_ilab.report.passes import pass_rows

SUMMARY = "GITHUB_STEP_SUMMARY"  # where GitHub Actions names the file of a job's summary

# GitHub cuts a comment at 65,536 characters, and a summary at a MiB.
MOST_FLIPS = 10
LONGEST = 400  # characters of one text


def markdown_summary(report: RunReport) -> str:
    """The verdict, the reasons, tables, the broken answers (folded) and the command; ends with a line feed."""
    gate = report.gate
    control = f"**{escape(wording.control_sentence(report.control))}**\n\n" if report.control else ""
    if gate is None:
        cost = f"Cost so far: {wording.cost_sentence(report)}."
        return f"{control}## No verdict yet\n\n{escape(wording.NO_VERDICT)}\n\n{cost}\n"
    lines = [f"{control}## {gate.outcome}: {wording.outcome_sentence(gate)}", "", *gate_lines(report, gate)]
    return "\n".join([*lines, *_command(report)])


def gate_lines(report: RunReport, gate: GateResult) -> list[str]:
    """The verdict without its heading and its command, ending with an empty line."""
    lines = [f"- {escape(wording.target_sentence(target, wording.level(gate)))}" for target in gate.targets]
    lines.append(f"- {escape(wording.watched_sentence(gate))}")
    lines += [f"- {wording.drawn_sentence(gate)}"] if gate.drawn else []
    lines += [f"- {escape(reason)}" for reason in gate.reasons]
    if any(judged.ungraded for judged in wording.judged(gate)):
        lines.append(f"- {escape(wording.ungraded_sentence(gate))}")
    lines += ["", *_suites(gate), *_passes(gate), *_worst(gate), ""]
    fixed, broken = gate.fixed_and_broken
    lines += [f"{fixed} answers fixed, {broken} broken. Cost: {wording.cost_sentence(report)}.", ""]
    return [*lines, *_flips(report, gate)]


def append_step_summary(report: RunReport) -> Path | None:
    """In a job of GitHub Actions, append the summary to the job's page; the file, or None elsewhere.

    Raises DiskError when there is no room, OSError if the file cannot be written.
    """
    return append_text(markdown_summary(report)) if os.environ.get(SUMMARY) else None


def append_text(text: str) -> Path | None:
    """The same for any Markdown."""
    path = os.environ.get(SUMMARY)
    if not path:
        return None
    with full_disk_named(Path(path)), open(path, "a", encoding="utf-8") as file:
        file.write(text + "\n")
    return Path(path)


def _suites(gate: GateResult) -> Iterator[str]:
    yield f"| skill | tier | tasks | before | after | difference ({wording.level(gate)} interval) | outcome |"
    yield "|---|---|--:|--:|--:|--:|---|"
    judged = [(t.skill, "target", t.n, t.greedy, t.outcome) for t in gate.targets]
    judged += [(w.skill, w.tier, w.n, w.greedy, w.outcome) for w in gate.watched]
    for skill, tier, n, change, outcome in judged:
        cells = [escape(skill), tier, str(n), wording.percent(change.before), wording.percent(change.after)]
        cells += [wording.difference(change.delta, change.ci), f"**{outcome}**"]
        yield f"| {' | '.join(cells)} |"


def _passes(gate: GateResult) -> Iterator[str]:
    rows = pass_rows(gate, largest=True)
    if rows:
        interval = f"difference ({wording.level(gate)} interval)"
        yield from ("", f"| skill | of the sampled answers | before | after | {interval} |", "|---|---|--:|--:|--:|")
    for row in rows:
        change = row.change
        cells = [escape(row.skill), row.name, wording.percent(change.before), wording.percent(change.after)]
        yield f"| {' | '.join([*cells, wording.difference(change.delta, change.ci)])} |"


def _worst(gate: GateResult) -> Iterator[str]:
    groups = wording.worst_groups(gate)
    if groups:
        yield from ("", "Worst group of tasks in each skill that has one:", "")
    for skill, worst in groups:
        yield f"- {escape(wording.worst_sentence(skill, worst))}"


def _flips(report: RunReport, gate: GateResult) -> Iterator[str]:
    fixed, broken = gate.fixed_and_broken
    flips = worst_group_first([flip for flip in gate.flips if flip.direction == "broken"])[:MOST_FLIPS]
    if not flips:
        return
    which = "all of them" if len(flips) == broken else f"{len(flips)} of them, the worst group first"
    yield "<details>"
    yield f"<summary>{wording.count(broken, 'broken answer')} (right before, wrong now): {which}</summary>"
    for flip in flips:
        yield from _flip(report, flip)
    if flips[0].detailed and len(flips) < broken + fixed:
        yield f"<p>All that changed:</p>{block(report.explain_command())}"
    yield from ("</details>", "")


def _flip(report: RunReport, flip: Flip) -> Iterator[str]:
    name = wording.group_name(flip.group)
    facts = [flip.skill, *([f"group {name}"] if name else []), *([f"class {flip.cls}"] if flip.cls is not None else [])]
    yield f"<h4><code>{inline(', '.join(facts))}</code></h4>"
    yield f"<p>Asked:</p>{block(flip.prompt)}<p>Right answer:</p>{block(flip.reference)}"
    yield "<table><tr><th></th><th>before: right</th><th>now: wrong</th></tr>"
    yield f"<tr><th>answer</th><td>{block(flip.before)}</td><td>{block(flip.after)}</td></tr>"
    if flip.detailed:
        before, after = (block(wording.extracted(answer)) for answer in (flip.before_answer, flip.after_answer))
        yield f"<tr><th>extracted</th><td>{before}</td><td>{after}</td></tr>"
    before, after = (block(reason or "gave no reason") for reason in (flip.before_reason, flip.after_reason))
    yield f"<tr><th>grader</th><td>{before}</td><td>{after}</td></tr></table>"
    if flip.detailed:
        yield block(report.explain_command(flip.task_id))


def _command(report: RunReport) -> Iterator[str]:
    if command := report.gate_command:
        yield from ("To judge again:", "", block(command), "")


def block(text: str) -> str:
    """Text as it is, in ``<pre>``, on one line of source whatever it holds.

    >>> block("a\\n\\n</pre>![x](y)@all")
    '<pre>a&#10;&#10;&lt;&#47;pre&gt;&#33;&#91;x&#93;&#40;y&#41;&#64;all</pre>'
    """
    return f"<pre>{_entities(_cut(text))}</pre>"


def inline(text: str) -> str:
    """The same for one line inside ``<code>`` of an HTML block."""
    return _entities(wording.one_line(_cut(text)))


def _entities(text: str) -> str:
    """Every character that HTML or any dialect of Markdown could take for its own becomes an entity."""
    return re.sub(r"[^\w .,;+?'-]", lambda found: _entity(found[0]), wording.visible(text), flags=re.ASCII)


def _entity(character: str) -> str:
    if ord(character) > 127:
        return character
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(character, f"&#{ord(character)};")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... {len(text) - LONGEST} more characters"


def escape(text: str) -> str:
    """One line of text that Markdown renders as it is written.

    >>> escape("<b>|@all *x* #1")
    '&lt;b&gt;\\\\|@&#8203;all \\\\*x\\\\* \\\\#&#8203;1'
    """
    safe = html.escape(wording.one_line(text), quote=False)
    # a backslash keeps punctuation literal; a first - or + or 1. would begin a list, = underline a heading
    safe = re.sub(r"([\\`*_{}\[\]()#|~$])", r"\\\1", safe)
    safe = re.sub(r"^([-+=])", r"\\\1", re.sub(r"^(\d+)\.(?=\s|$)", r"\1\\.", safe))
    # GitHub looks for mentions and references in the finished text, where no escape is left: an invisible space
    # keeps them apart; autolinks are found in the source, where an entity is none of their characters
    safe = re.sub(r"@(?=\w)", "@&#8203;", re.sub(r"#(?=\d)", "#&#8203;", safe))
    safe = re.sub(r"\bGH-(?=\d)", "GH-&#8203;", safe, flags=re.IGNORECASE)
    return re.sub(r"\bwww\.", "www&#46;", safe.replace("://", "&#58;//"), flags=re.IGNORECASE)
