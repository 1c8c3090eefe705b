"""The verdict as JUnit XML, for the test views of CI systems (Jenkins, GitLab, and what GitHub's actions read).

One ``testsuite`` a skill. Its first ``testcase`` is the verdict on the skill: FAIL is a ``failure``, INCONCLUSIVE an
``error`` (it was not shown either way, and the exit code is not 0), of an advisory skill both are ``skipped``. Then
every flipped task and every task without a grade:

- a broken task of a skill that failed is a ``failure``; elsewhere it is ``skipped`` with its story, because one flip
  decides nothing, and a view full of red beside a PASS would teach people to look away;
- a fixed task is a test that passed;
- a task that the grader failed on is an ``error``.

Elements and attributes are those that both common schemas allow (windyroad/JUnit-Schema, which is Ant's, and
``junit-10.xsd`` of Jenkins' xunit plugin); so no attributes on ``testsuites`` and no ``system-out`` in a ``testcase``.
Times are 0: tasks are not run one by one.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rft_ilab.report import wording
from rft_ilab.report.data import RunReport
from rft_ilab.report.flips import worst_group_first
from rft_ilab.report.gate_data import Flip, GateResult, TargetResult, WatchedResult
from rft_ilab.report.json_report import verdict_of
from rft_ilab.results import FILE, Result, read_results

MOST_UNGRADED = 200  # per skill; the others are counted
LONGEST = 2000  # characters of one text

Row = TargetResult | WatchedResult


def write_junit(report: RunReport, path: Path) -> None:
    """Write the file, atomically. Raises RunError if the run has no verdict, DiskError when there is no room."""
    from rft_ilab.store import write_atomic

    write_atomic(path, junit_of(report))


def junit_of(report: RunReport) -> str:
    """The XML of a run directory, with the tasks without a grade where the run has its single results."""
    results = report.directory.joinpath(*FILE)
    verdict = report.directory / "gate" / "verdict.json"
    judged = datetime.fromtimestamp(verdict.stat().st_mtime, UTC) if verdict.exists() else datetime.now(UTC)
    return junit_xml(report, read_results(results) if results.exists() else (), judged)


def junit_xml(report: RunReport, results: Iterable[Result], judged: datetime) -> str:
    """The whole document; ``judged`` is the time of the verdict (UTC). Raises RunError without a verdict."""
    gate = verdict_of(report)
    ungraded: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        if result.ungraded:
            ungraded.setdefault(result.suite, {}).setdefault(result.task_id, []).append(result)
    root = ET.Element("testsuites")
    for number, row in enumerate(wording.judged(gate)):
        flips = worst_group_first([flip for flip in gate.flips if flip.skill == row.skill])
        cases = [_verdict_case(row), *(_flip_case(report, row, flip) for flip in flips)]
        cases += _ungraded_cases(row, ungraded.get(row.skill, {}))
        root.append(_suite(row, number, cases, _summary(gate, row), judged))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(row: Row, number: int, cases: Sequence[ET.Element], summary: str, judged: datetime) -> ET.Element:
    area, _, _ = row.skill.rpartition("/")
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    suite = ET.Element(
        "testsuite",
        {
            "name": _line(row.skill),
            "package": _line(area.replace("/", ".")),
            "id": str(number),
            "timestamp": judged.strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": "localhost",
            "tests": str(len(cases)),
            "failures": str(counts["failure"]),
            "errors": str(counts["error"]),
            "skipped": str(counts["skipped"]),
            "time": "0",
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _facts(row):
        ET.SubElement(properties, "property", {"name": name, "value": _line(value)})
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = summary
    ET.SubElement(suite, "system-err")
    return suite


def _tier(row: Row) -> str:
    return row.tier if isinstance(row, WatchedResult) else "target"


def _facts(row: Row) -> list[tuple[str, str]]:
    greedy = row.greedy
    facts = [("tier", _tier(row)), ("outcome", row.outcome), ("tasks", str(row.n)), ("ungraded", str(row.ungraded))]
    facts += [("before", wording.percent(greedy.before)), ("after", wording.percent(greedy.after))]
    return [*facts, ("difference", wording.difference(greedy.delta, greedy.ci))]


def _case(row: Row, name: str, kind: str = "", message: str = "", type_: str = "", text: str = "") -> ET.Element:
    """A testcase; ``kind`` is the element in it (none: it passed)."""
    case = ET.Element("testcase", {"classname": _line(row.skill.replace("/", ".")), "name": _line(name), "time": "0"})
    if kind:
        attributes = {"message": _line(message), **({} if kind == "skipped" else {"type": type_})}
        ET.SubElement(case, kind, attributes).text = text or None
    return case


def _verdict_case(row: Row) -> ET.Element:
    name = "verdict: no worse than its margin" if isinstance(row, WatchedResult) else "verdict: better than the base"
    if row.outcome == "PASS":
        return _case(row, name)
    message = f"{row.outcome}: {row.reason}"
    if _tier(row) == "advisory":
        return _case(row, name, "skipped", f"advisory, does not decide: {message}")
    return _case(row, name, "failure" if row.outcome == "FAIL" else "error", message, row.outcome)


def _flip_case(report: RunReport, row: Row, flip: Flip) -> ET.Element:
    name = f"task {flip.task_id[:12]}"
    if flip.direction == "fixed":
        return _case(row, name)
    message = f"broken: {flip.after_reason or 'right before, wrong now'}"
    if row.outcome == "FAIL" and _tier(row) != "advisory":
        return _case(row, name, "failure", message, "broken", _story(report, flip))
    message += f" (the skill is {row.outcome}: one task decides nothing)"
    return _case(row, name, "skipped", message, "", _story(report, flip))


def _story(report: RunReport, flip: Flip) -> str:
    sides = (
        ("before", flip.before, flip.before_answer, flip.before_reason),
        ("now", flip.after, flip.after_answer, flip.after_reason),
    )
    lines = [f"group: {flip.group}"] if flip.group else []
    lines += [f"class: {flip.cls}"] if flip.cls is not None else []
    lines += ["", "asked:", flip.prompt, "", "right answer:", flip.reference]
    for title, text, answer, reason in sides:
        lines += ["", f"{title}:", text]
        lines += [f"extracted: {wording.extracted(answer)}"] if flip.detailed else []
        lines += [f"grader: {reason or 'gave no reason'}"]
    lines += ["", f"to see all of it: {report.explain_command(flip.task_id)}"] if flip.detailed else []
    return "\n".join(_text(line) for line in lines).strip("\n") + "\n"


def _ungraded_cases(row: Row, tasks: dict[str, list[Result]]) -> list[ET.Element]:
    cases = []
    for task_id, results in list(tasks.items())[:MOST_UNGRADED]:
        greedy = next((result for result in results if result.greedy.score is None), None)
        if greedy:
            message = f"not graded, {greedy.side}: {greedy.greedy.reason or 'the grader failed'}"
            cases.append(_case(row, f"task {task_id[:12]}", "error", message, "ungraded", _text(greedy.greedy.text)))
        else:
            missed = sum(score is None for result in results for score in result.sampled)
            message = f"{wording.count(missed, 'draw')} not graded"
            cases.append(_case(row, f"task {task_id[:12]}, draws", "error", message, "ungraded"))
    beyond = max(len(tasks), row.ungraded) - len(cases)
    if beyond > 0:
        said = f"{wording.count(beyond, 'more task' if cases else 'task')} without a grade"
        cases.append(_case(row, "tasks without a grade", "error", said, "ungraded"))
    return cases


def _summary(gate: GateResult, row: Row) -> str:
    lines = [f"{row.outcome}: {row.reason}"]
    if count := next((c for c in gate.flip_counts if c.skill == row.skill), None):
        lines.append(f"{count.broken} tasks broken, {count.fixed} fixed; {count.listed} of them are listed")
    if row.worst and row.worst.telling:
        lines.append(f"worst group: {wording.worst_sentence(row.skill, row.worst)}")
    return "\n".join(_text(line) for line in lines) + "\n"


def _line(text: str) -> str:
    """For attributes: one line, of characters that XML has."""
    return _text(wording.one_line(text))


def _text(text: str) -> str:
    """Control characters and the like are named, as everywhere; XML also has no U+FFFE and U+FFFF."""
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST]} ... {len(text) - LONGEST} more characters"
    return re.sub("[\ufffe\uffff]", lambda found: f"⟨U+{ord(found[0]):04X}⟩", wording.visible(cut))
