"""JUnit XML: its shape after both common schemas, what is red in it, and that any text survives."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import RunError
from rft_ilab.regress.verdict import Answer
from rft_ilab.report.data import RunReport
from rft_ilab.report.junit import junit_of, junit_xml, write_junit
from rft_ilab.report.load import load_run
from rft_ilab.results import Result, read_results
from rft_ilab.types import Outcome

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "run"
WHEN = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
XML_CHARACTERS = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TOKEN = re.compile(r"\S+( \S+)*|")  # xs:token: no line break, no space at the ends, none twice


@pytest.fixture(scope="module")
def report() -> RunReport:
    return replace(load_run(RUN), directory=Path("runs/demo"))


def parsed(report: RunReport, results: Iterable[Result] = ()) -> ET.Element:
    text = junit_xml(report, results, WHEN)
    assert not XML_CHARACTERS.search(text)
    root = ET.fromstring(text)
    check_shape(root)
    return root


def check_shape(root: ET.Element) -> None:
    """What windyroad's JUnit.xsd (Ant) and Jenkins' junit-10.xsd both allow."""
    assert root.tag == "testsuites" and root.attrib == {}
    for number, suite in enumerate(root):
        assert suite.tag == "testsuite" and suite.attrib["id"] == str(number)
        assert set(suite.attrib) == {
            "name", "package", "id", "timestamp", "hostname", "tests", "failures", "errors", "skipped", "time",
        }  # fmt: skip
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        first, *cases, out, err = suite
        assert (first.tag, out.tag, err.tag) == ("properties", "system-out", "system-err")
        assert all(p.tag == "property" and set(p.attrib) == {"name", "value"} and p.attrib["name"] for p in first)
        for case in cases:
            assert case.tag == "testcase" and set(case.attrib) == {"classname", "name", "time"}
            assert len(case) <= 1 and all(len(child) == 0 for child in case)
            for child in case:
                required = {"skipped": {"message"}, "failure": {"message", "type"}, "error": {"message", "type"}}
                assert set(child.attrib) == required[child.tag]
        assert int(suite.attrib["tests"]) == len(cases)
        for tag, key in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.attrib[key]) == len(suite.findall(f"testcase/{tag}"))
        for element in (suite, *cases):
            for key in ("name", "package", "classname"):
                assert TOKEN.fullmatch(element.attrib.get(key, ""))
        names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
        assert len(set(names)) == len(names)


def suites(root: ET.Element) -> dict[str, ET.Element]:
    return {suite.attrib["name"]: suite for suite in root}


def verdict_of(suite: ET.Element) -> ET.Element | None:
    case = suite.find("testcase")
    assert case is not None and case.attrib["name"].startswith("verdict: ")
    return next(iter(case), None)


def with_outcome(report: RunReport, outcome: Outcome, **changes: Any) -> RunReport:
    assert report.gate is not None
    date, order, *others = report.gate.watched
    order = replace(order, outcome=outcome, **{"reason": "-24.0 points", **changes})
    return replace(report, gate=replace(report.gate, outcome=outcome, watched=(date, order, *others)))


def test_nothing_is_red_beside_a_pass(report: RunReport) -> None:
    root = parsed(report)
    assert list(suites(root)) == [
        "healthcare/patient_triage", "office/iso_date", "office/order_json", "retail/return_policy",
        "retail/banking_intents",
    ]  # fmt: skip
    # The one task without a grade is red by itself: without results, as a count.
    assert [e.attrib["message"] for e in root.iter("error")] == ["1 task without a grade"]
    assert not list(root.iter("failure")) and len(list(root.iter("skipped"))) == 4
    skipped = next(root.iter("skipped"))
    assert skipped.attrib["message"].endswith("(the skill is PASS: one task decides nothing)")


def test_a_failed_skill_fails_with_its_broken_tasks(report: RunReport) -> None:
    failed = suites(parsed(with_outcome(report, "FAIL")))["office/order_json"]
    verdict, broken = failed.findall("testcase/failure")
    assert verdict is verdict_of(failed) and verdict.attrib == {"message": "FAIL: -24.0 points", "type": "FAIL"}
    assert broken.attrib == {"message": "broken: quantity: '2' is not 2", "type": "broken"}
    story = broken.text or ""
    for words in (
        "asked:\nPlease send me two desk lamps, green ones", "right answer:\n{", "extracted: nothing",
        "grader: quantity: '2' is not 2", "ilab rft explain 0de42b5e5bf2 --run runs/demo",
    ):  # fmt: skip
        assert words in story


def test_undecided_is_an_error_and_advisory_is_skipped(report: RunReport) -> None:
    undecided = suites(parsed(with_outcome(report, "INCONCLUSIVE")))["office/order_json"]
    found = verdict_of(undecided)
    assert found is not None and (found.tag, found.attrib["type"]) == ("error", "INCONCLUSIVE")
    assert not undecided.findall("testcase/failure")
    for outcome in ("FAIL", "INCONCLUSIVE"):
        advisory = suites(parsed(with_outcome(report, outcome, tier="advisory")))["office/order_json"]  # type: ignore[arg-type]
        found = verdict_of(advisory)
        assert found is not None and found.tag == "skipped" and not advisory.findall("testcase/failure")


def test_tasks_without_a_grade_are_errors(report: RunReport) -> None:
    results = list(read_results(RUN / "gate" / "results.jsonl"))
    suite = suites(parsed(report, results))["healthcare/patient_triage"]
    (case,) = (c for c in suite.findall("testcase") if c.find("error") is not None)
    error = case[0]
    assert case.attrib["name"] == "task abababababab" and error.attrib["type"] == "ungraded"
    assert error.attrib["message"] == "not graded, candidate: grader timed out after 2.0 s"
    assert error.text == "EMERGENCY⟨U+0000⟩"


def test_draws_without_a_grade_and_more_tasks_than_fit(report: RunReport) -> None:
    first = next(read_results(RUN / "gate" / "results.jsonl"))
    draws = [replace(first, task_id=f"{i:012x}{i:052x}", sampled=(1.0, None, None)) for i in range(250)]
    suite = suites(parsed(report, draws))["healthcare/patient_triage"]
    errors = [
        (c.attrib["name"], c[0].attrib["message"]) for c in suite.findall("testcase") if c.find("error") is not None
    ]
    assert len(errors) == 201 and errors[0] == ("task 000000000000, draws", "2 draws not graded")
    assert errors[-1] == ("tasks without a grade", "50 more tasks without a grade")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_of_a_model_makes_valid_xml(report: RunReport, text: str) -> None:
    gate = report.gate
    assert gate is not None
    (flip,) = (f for f in gate.flips if f.skill == "office/order_json" and f.direction == "broken")
    texts = dict.fromkeys(
        ("prompt", "reference", "before", "after", "after_reason", "after_answer", "group", "cls"), text
    )
    flips = (replace(flip, **texts),)
    failed = with_outcome(replace(report, gate=replace(gate, flips=flips, reasons=(text,))), "FAIL", reason=text)
    result = Result(
        suite="office/order_json", tier="", side="baseline", model=text, demonstrations=0, max_tokens=1,
        temperature=0.0, seed=0, task_id=text, group=text, cls=None, prompt=text, reference=text, sampled=(),
        greedy=Answer(score=None, text=text, reason=text),
    )  # fmt: skip
    assert len(list(parsed(failed, [result]).iter("failure"))) == 2


def test_control_characters_and_noncharacters_are_named(report: RunReport) -> None:
    gate = report.gate
    assert gate is not None
    flips = tuple(replace(f, after="a\x00\x1b\ufffe\uffff\ud800<&>]]>\r\nb") for f in gate.flips)
    root = parsed(with_outcome(replace(report, gate=replace(gate, flips=flips)), "FAIL"))
    texts = [element.text or "" for element in root.iter("failure")]
    assert any("a⟨U+0000⟩⟨U+001B⟩⟨U+FFFE⟩⟨U+FFFF⟩⟨U+D800⟩<&>]]>⟨U+000D⟩\nb" in text for text in texts)


def test_of_a_run_directory(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "demo"))
    write_junit(load_run(run), tmp_path / "deep" / "junit.xml")
    root = ET.parse(tmp_path / "deep" / "junit.xml").getroot()
    check_shape(root)
    assert [e.attrib["message"] for e in root.iter("error")] == ["not graded, candidate: grader timed out after 2.0 s"]
    (run / "gate" / "results.jsonl").unlink()
    assert "1 task without a grade" in junit_of(load_run(run))
    (run / "gate" / "results.jsonl").write_text('{"suite": 1}\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"results\.jsonl:1: not a line of results"):
        junit_of(load_run(run))
    (run / "gate" / "verdict.json").unlink()
    with pytest.raises(RunError, match="no verdict yet"):
        junit_of(load_run(run, require_verdict=False))
