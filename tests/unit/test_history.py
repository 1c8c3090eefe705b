"""The history of verdicts: what is appended, what is not, in which order, and what people see of it."""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from rft_ilab.cli.history import history as command
from rft_ilab.errors import RunError
from rft_ilab.pipeline import regress
from rft_ilab.report.history import Entry, in_git_order, load_history
from rft_ilab.report.history_html import MOST_ROWS, render_history
from rft_ilab.report.history_text import decided, print_history, sparkline
from rft_ilab.skills.commits import head, ranks
from rft_ilab.store import append_jsonl, read_jsonl
from rft_ilab.types import Outcome
from tests.unit.repositories import commit_all
from tests.unit.test_pipeline import make, on, quiet, right, weak, wrong  # noqa: F401 - a fixture
from tests.unit.test_report_html import HOSTILE, Page
from tests.unit.test_report_text import assert_golden


def suite(skill: str, after: float, before: float = 0.6, **fields: Any) -> dict[str, Any]:
    delta = round(after - before, 5)
    row = {"skill": skill, "tier": "supporting", "n": 200, "ungraded": 0, "before": before, "after": after}
    row |= {"delta": delta, "ci": [round(delta - 0.05, 5), round(delta + 0.05, 5)], "margin": 0.1, "outcome": "PASS"}
    return row | fields


def line(day: int, commit: str, outcome: Outcome = "PASS", **fields: Any) -> dict[str, Any]:
    row = {"time": f"2026-01-{day:02}T10:00:00Z", "commit": commit * 5, "dirty": False, "run": f"run{day}"}
    row |= {"candidate": {"name": f"run{day}", "id": "local:c"}, "baseline": {"name": "base", "id": "local:b"}}
    row |= {"outcome": outcome, "alpha": 0.05, "key": f"key{day}"}
    target = suite("healthcare/patient_triage", 0.6 + 0.05 * day, tier="target", margin=None)
    return row | {"suites": [target, suite("dates/iso_date", 0.62 - 0.02 * day)]} | fields


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Five verdicts: one fails, one is inconclusive, one repeats its evidence at another commit and lacks a skill."""
    rows = [line(1, "11111111"), line(2, "22222222", dirty=True), line(3, "33333333", "FAIL")]
    rows[2]["suites"][1] |= {"outcome": "FAIL", "after": 0.4, "delta": -0.2, "ci": [-0.25, -0.15]}
    rows.append(line(4, "44444444", "INCONCLUSIVE"))
    rows[3]["suites"][0] |= {"outcome": "INCONCLUSIVE"}
    rows.append(line(5, "55555555", key="key2"))
    rows[4]["suites"].pop()
    append_jsonl(tmp_path / "history.jsonl", rows)
    return tmp_path / "history.jsonl"


def printed(path: Path, width: int = 80) -> str:
    stream = io.StringIO()
    history = load_history(path, {})
    print_history(history, Console(file=stream, width=width, no_color=True), total=len(history.entries) + 3)
    return "".join(row.rstrip() + "\n" for row in stream.getvalue().splitlines())


# ---- what the gate writes ----


def test_a_gate_appends_one_small_line_without_texts_or_paths(make: Callable[..., Any], tmp_path: Path) -> None:  # noqa: F811
    import dataclasses

    kept = tmp_path / "repository" / "history.jsonl"
    request = dataclasses.replace(
        make(base=weak, tuned=on("target", right, weak)), histories=(tmp_path / "runs" / "history.jsonl", kept)
    )
    verdict = regress(request, candidate=tmp_path / "tuned", console=quiet())
    (row,) = read_jsonl(kept)
    assert read_jsonl(tmp_path / "runs" / "history.jsonl") == [row]
    assert (row["outcome"], row["candidate"]["name"], row["baseline"]["name"]) == ("PASS", "tuned", "base")
    assert row["commit"] == "" and not row["dirty"] and row["run"] == "run"
    target, watched = row["suites"]
    assert target["after"] == verdict["targets"][0]["greedy"]["after"] == 1.0 and target["margin"] is None
    assert watched["ci"] == pytest.approx(verdict["watched"][0]["ci"], abs=1e-5) and watched["margin"] == 0.1
    text = kept.read_text()
    assert len(text) < 1200 and str(tmp_path) not in text and "Question" not in text

    regress(request, candidate=tmp_path / "tuned", console=quiet())
    assert len(read_jsonl(kept)) == 1, "a warm gate repeats itself and says nothing new"
    append_jsonl(kept, [row | {"outcome": "FAIL"}])
    regress(request, candidate=tmp_path / "tuned", console=quiet())
    assert [r["outcome"] for r in read_jsonl(kept)] == ["PASS", "FAIL", "PASS"], "what came back holds"
    assert load_history(kept, {}).entries[0].outcome == "PASS"
    kept.write_text(text)
    other = dataclasses.replace(make(base=weak, other=wrong), histories=(kept,))
    regress(other, candidate=tmp_path / "other", console=quiet())
    assert [r["candidate"]["name"] for r in read_jsonl(kept)] == ["tuned", "other"]
    assert load_history(kept, {}).entries[1].outcome == "FAIL"


def test_a_history_that_cannot_be_written_costs_no_verdict(make: Callable[..., Any], tmp_path: Path) -> None:  # noqa: F811
    import dataclasses

    (tmp_path / "file").write_text("")
    request = dataclasses.replace(make(base=weak, tuned=weak), histories=(tmp_path / "file" / "history.jsonl",))
    out = io.StringIO()
    verdict = regress(request, candidate=tmp_path / "tuned", console=Console(file=out, width=200))
    assert verdict["outcome"] and "history.jsonl cannot be written: File exists" in out.getvalue()


def write(path: Path, start: int) -> None:
    for day in range(start, start + 10):
        append_jsonl(path, [line(day, f"{day:08}")])


def test_two_writers_and_a_torn_line_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"time": "2026-01-01T10:')
    workers = [multiprocessing.get_context("fork").Process(target=write, args=(path, n)) for n in (1, 11)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    history = load_history(path, {})
    assert [entry.time[8:10] for entry in history.entries] == [f"{day:02}" for day in range(1, 21)]
    assert history.damaged == 0


# ---- reading ----


def test_the_same_verdict_of_two_gates_at_once_is_one(path: Path) -> None:
    append_jsonl(path, [line(2, "22222222", time="2026-01-02T10:00:03Z")])
    entries = load_history(path, {}).entries
    assert len(entries) == 5 and entries[1].time == "2026-01-02T10:00:03Z"


def test_the_same_evidence_at_another_commit_is_marked(path: Path) -> None:
    assert [entry.again for entry in load_history(path, {}).entries] == [False, False, False, False, True]


def test_lines_that_are_no_verdicts_are_counted(path: Path) -> None:
    bad = [[], {"time": "yesterday"}, line(9, "9", outcome="FINE"), line(9, "9", suites=[suite("a", 0.5, n=-1)])]  # type: ignore[arg-type]
    append_jsonl(path, [*bad, line(9, "9", suites=[suite("a", 0.5, before=float("nan"))])])
    history = load_history(path, {})
    assert (len(history.entries), history.damaged) == (5, 5)
    assert "Note: 5 lines of the file without a verdict." in printed(path)


def test_what_is_no_history_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no history of verdicts here yet"):
        load_history(tmp_path / "none.jsonl", {})
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(RunError, match="no verdict in this file"):
        load_history(tmp_path / "other.jsonl", {})


def entry(day: int, commit: str) -> Entry:
    return Entry(
        time=f"2026-01-{day:02}T10:00:00Z", commit=commit, dirty=False, run="", candidate="", baseline="",
        outcome="PASS", key=str(day), suites=(),
    )  # fmt: skip


def test_git_decides_the_order_and_time_the_rest() -> None:
    """c was judged last but committed second; x is of a branch that is not here, y of no git at all."""
    entries = [entry(1, "a"), entry(2, "b"), entry(9, "c"), entry(3, "b"), entry(4, "x"), entry(1, "")]
    ordered = in_git_order(entries, {"a": 0, "c": 1, "b": 2})
    assert [e.commit + e.time[9] for e in ordered] == ["a1", "1", "c9", "b2", "b3", "x4"]


def test_commits_of_a_taxonomy(tmp_path: Path) -> None:
    taxonomy = tmp_path / "repository" / "taxonomy"
    (taxonomy / "compositional_skills").mkdir(parents=True)
    assert head(taxonomy) == ("", False) and ranks(taxonomy) == {}

    for text in ("one", "two"):
        (taxonomy / "compositional_skills" / "qna.yaml").write_text(text)
        commit_all(taxonomy, text)
    commit, dirty = head(taxonomy)
    assert ranks(taxonomy)[commit] == 1 and len(ranks(taxonomy)) == 2 and not dirty
    (taxonomy / "history.jsonl").write_text("{}")
    assert head(taxonomy) == (commit, False), "a history kept in the taxonomy does not make it dirty"
    (taxonomy / "compositional_skills" / "qna.yaml").write_text("three")
    assert head(taxonomy) == (commit, True)


# ---- what people see ----


def test_the_terminal(path: Path) -> None:
    assert_golden("history.txt", printed(path))


def test_a_skill_of_tier_target_that_was_watched_is_no_target(tmp_path: Path) -> None:
    """Another skill was trained (--target), so this one has a margin and did not have to gain."""
    row = line(1, "abc")
    row["suites"] = [suite("x/trained", 0.9, margin=None), suite("y/usual", 0.55, tier="target", margin=0.1)]
    append_jsonl(tmp_path / "history.jsonl", [row])
    history = load_history(tmp_path / "history.jsonl", {})
    assert history.skills == ("x/trained", "y/usual")
    assert decided(history.entries[0], {}) == "x/trained +30.0; worst other: y/usual -5.0"


def test_sparkline() -> None:
    assert sparkline([-1.0, 0.0, 0.126, None, 0.99, 1.0, 2.0]) == "▁▁▂·███"


def test_hostile_names_are_shown_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    name = f"[red]{HOSTILE}[/red]"
    row = line(1, "") | {"commit": name, "run": name, "candidate": {"name": name}, "baseline": {"name": name}}
    row["suites"][0]["skill"] = name
    path.write_text(json.dumps(row) + "\n")
    text = printed(path)
    assert "\x1b" not in text and "\u202e" not in text and "[red]" in text
    page = Page(render_history(load_history(path, {})))
    assert {tag for tag, _, _ in page.tags} & {"script", "img", "iframe", "link", "a"} == {"a"}
    assert not any(key.startswith("on") for _, attributes, _ in page.tags for key in attributes)
    assert "⟨U+202E⟩" in page.text


def test_the_page_is_whole_and_draws_every_verdict(path: Path) -> None:
    text = render_history(load_history(path, {}))
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    titles = [tag for tag, attributes, _ in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(titles) == 2
    classes = [str(attributes.get("class")) for _, attributes, _ in page.tags]
    marks = [name for name in classes if "mark" in name.split()]
    # 5 verdicts on the target, 4 on the other skill; a cross has two arms; and the three of the legend
    assert (marks.count("mark PASS"), marks.count("mark cross"), marks.count("mark ring")) == (7 + 1, 2 + 2, 1 + 1)
    for words in (
        "Latest: PASS", "44444444: INCONCLUSIVE, 60.0% before, 80.0% after", "22222222+", "same evidence as before",
        "iso_date -20.0",
    ):  # fmt: skip
        assert words in page.text, words
    ids = [attributes["id"] for _, attributes, _ in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_long_history_stays_a_small_page(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_jsonl(path, [line(1 + i % 28, f"{i:08}", key=str(i)) for i in range(600)])
    text = render_history(load_history(path, {}))
    assert len(text.encode()) < 400_000 and f"the last {MOST_ROWS} of 600" in text


def run(*arguments: str) -> tuple[int, str]:
    from types import SimpleNamespace

    from instructlab.configuration import get_default_config

    result = CliRunner().invoke(command, [*arguments], obj=SimpleNamespace(config=get_default_config()))
    return result.exit_code, result.output


def test_the_command(path: Path, tmp_path: Path) -> None:
    where = ["--history", str(path), "--taxonomy-path", str(tmp_path)]
    code, out = run(*where, "--last", "2", "--json")
    rows = [json.loads(row) for row in out.splitlines()]
    assert code == 0 and [row["commit"][:8] for row in rows] == ["44444444", "55555555"]
    code, out = run(*where, "--skill", "dates/iso_date")
    assert code == 0 and "55555555" not in out and "patient_triage" not in out and "4 verdicts" in out
    code, out = run(*where, "--skill", "area/none")
    assert code == 2 and out.count("\n") == 1 and "no verdict on a skill 'area/none'" in out
    code, out = run(*where, "--html", str(tmp_path / "page.html"))
    assert code == 0 and (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    code, out = run("--history", str(tmp_path / "none"), "--taxonomy-path", str(tmp_path))
    assert code == 2 and "no history of verdicts here yet" in out
