"""Terminal, Markdown and JSON. ``UPDATE_GOLDEN=1 pytest tests/unit/test_report_text.py`` rewrites the golden files."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rft_ilab.errors import RunError
from rft_ilab.report import wording
from rft_ilab.report.data import RunReport
from rft_ilab.report.html import render_html
from rft_ilab.report.json_report import json_summary
from rft_ilab.report.load import load_run
from rft_ilab.report.markdown import markdown_summary
from rft_ilab.report.terminal import print_summary
from rft_ilab.report.verdict import parse_verdict
from rft_ilab.types import Outcome

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def report() -> RunReport:
    return replace(load_run(TESTS / "fixtures" / "run"), directory=Path("runs/demo"))


def with_outcome(report: RunReport, outcome: Outcome) -> RunReport:
    """The same run, with the second watched skill lost or undecided."""
    assert report.gate is not None
    first, second, *others = report.gate.watched
    assert second.greedy.before is not None
    low = -0.31 if outcome == "FAIL" else -0.12
    delta = -0.24 if outcome == "FAIL" else -0.055
    change = replace(second.greedy, after=second.greedy.before + delta, delta=delta, ci=(low, delta + 0.07))
    reason = f"office/order_json: {wording.interval(change.ci)} does not stay above the margin of -10.0 points"
    second = replace(second, outcome=outcome, greedy=change, reason=reason)
    return replace(
        report, gate=replace(report.gate, outcome=outcome, reasons=(reason,), watched=(first, second, *others))
    )


def printed(report: RunReport, width: int = 80) -> str:
    stream = io.StringIO()
    print_summary(report, Console(file=stream, width=width, no_color=True, force_terminal=False))
    return "".join(line.rstrip() + "\n" for line in stream.getvalue().splitlines())


def assert_golden(name: str, text: str) -> None:
    path = TESTS / "golden" / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("outcome", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_terminal_at_80_columns(report: RunReport, outcome: Outcome) -> None:
    text = printed(report if outcome == "PASS" else with_outcome(report, outcome))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert_golden(f"report_{outcome.lower()}.txt", text)


def test_terminal_names_the_page_when_it_is_there(report: RunReport, tmp_path: Path) -> None:
    page = tmp_path / ("long" * 30) / "report.html"
    page.parent.mkdir()
    page.touch()
    stream = io.StringIO()
    print_summary(report, Console(file=stream, width=80, no_color=True), page)
    assert f"Report: {page}\n" in stream.getvalue()  # on one line, however long


def test_a_control_run_says_so_first(report: RunReport) -> None:
    said = "CONTROL RUN (random-reward): GRPO was rewarded by chance."
    control = replace(report, manifest={**report.manifest, "control": "random-reward"})
    for each in (control, replace(control, gate=None)):
        assert printed(each).startswith(said)
        assert markdown_summary(each).startswith(r"**CONTROL RUN \(random-reward\): GRPO was rewarded by chance.")
        assert "<h1>Tuning report of a CONTROL RUN</h1>" in (page := render_html(each))
        assert said in page and "<title>CONTROL RUN, " in page
    assert json_summary(control)["control"] == "random-reward" and json_summary(report)["control"] is None
    assert "CONTROL" not in printed(report) + markdown_summary(report) + render_html(report)


def test_terminal_without_verdict(report: RunReport) -> None:
    text = printed(replace(report, gate=None))
    assert text.startswith("No verdict yet") and "Cost:   7 min 20 s wall time" in text


def test_terminal_neutralises_hostile_text(report: RunReport) -> None:
    assert report.gate is not None
    hostile = "[bold red]x[/] \x1b[2J\u202e\u2028 [link=http://x]y"
    watched = (replace(report.gate.watched[0], skill=f"a/{hostile}"), *report.gate.watched[1:])
    text = printed(replace(report, gate=replace(report.gate, reasons=(hostile,), watched=watched)), width=120)
    assert not {"\x1b", "\u202e", "\u2028"} & set(text)
    assert "[bold red]x[/] ⟨U+001B⟩[2J⟨U+202E⟩⟨U+2028⟩ [link=http://x]y" in text


def test_markdown(report: RunReport) -> None:
    assert_golden("report.md", markdown_summary(report))


def test_markdown_without_verdict(report: RunReport) -> None:
    assert markdown_summary(replace(report, gate=None)).startswith("## No verdict yet\n")


def test_json(report: RunReport) -> None:
    assert_golden("report.json", json.dumps(json_summary(report), indent=1) + "\n")


def test_json_has_exactly_the_documented_keys(report: RunReport) -> None:
    summary = json_summary(report)
    assert list(summary) == ["verdict", "control", "targets", "watched", "selection", "wall_s", "cpu_s", "peak_rss_mb"]
    assert list(summary["targets"][0]) == ["skill", "n", "greedy", "sampled", "macro", "majority"]
    assert list(summary["targets"][0]["greedy"]) == ["before", "after", "ci"]
    assert list(summary["selection"]) == ["chosen", "scale", "frontier"]
    assert list(summary["watched"][0]) == ["skill", "n", "delta", "ci", "outcome"]


@given(st.text())
def test_visible_leaves_nothing_that_moves_or_hides_text(text: str) -> None:
    shown = wording.visible(text)
    shown.encode()  # no lone surrogate is left
    assert all(c in "\n\t" or c.isprintable() or c.isspace() or ord(c) > 0x7F for c in shown)
    assert not set("\u202a\u202e\u2066\u2069\u200b\u200e\u2028\u2029\ufeff\x1b\x85") & set(shown)


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0.0 s"), (59.96, "1 min 0 s"), (3599.6, "1 h 0 min"), (119.7, "2 min 0 s")]
)
def test_seconds_round_without_sixties(value: float, words: str) -> None:
    assert wording.seconds(value) == words


def test_a_verdict_that_stopped_early_says_so(report: RunReport, tmp_path: Path) -> None:
    raw = json.loads((TESTS / "fixtures" / "run" / "gate" / "verdict.json").read_text())
    rows = [*raw["targets"], *raw["watched"]]
    for row in rows:
        row["available"] = row["n"] + row["ungraded"] + 100
    raw["mode"] = "until-decided"
    gate = parse_verdict(raw, tmp_path / "verdict.json")
    used = sum(row["n"] + row["ungraded"] for row in rows)
    assert gate.drawn == (used, used + 100 * len(rows))
    early = replace(report, gate=gate)
    sentence = f"Tasks were drawn until each skill was decided: {used:,} of {used + 100 * len(rows):,}."
    for text in (printed(early, 200), markdown_summary(early), render_html(early)):
        assert sentence in text
    for text in (printed(report, 200), markdown_summary(report), render_html(report)):
        assert "Tasks were drawn" not in text
    del rows[0]["available"]
    with pytest.raises(RunError, match="available must be a whole number"):
        parse_verdict(raw, tmp_path / "verdict.json")
