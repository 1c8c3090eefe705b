"""`ilab rft import` of tables and of skills that have only a qna.yaml, and the grader that it proposes."""

# ruff: noqa: F811 - a fixture of test_import.py
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from rft_ilab.cli import import_options
from rft_ilab.config import Settings
from rft_ilab.grading import propose as proposing
from rft_ilab.grading.propose import propose
from rft_ilab.skills.tree import load_skill
from tests.unit.taxonomies import LABELS
from tests.unit.test_import import CITIES, COUNTRIES, EXACT, everything, place, refused, run, tasks_of, words  # noqa: F401


def write_table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def run_table(place: Path, text: str, *arguments: Any) -> Result:
    table = write_table(place / "table.csv", text)
    columns = ["--prompt", "q", "--reference", "a", "--description", "Answer."]
    return run(place, "csv", table, *columns, *arguments)


def test_a_table_becomes_a_skill_with_a_grader_that_fits(place: Path) -> None:
    body = "".join(f'"Is {words(i)}, really, ""so""?\nSay.",{LABELS[i % 3]},t{i // 3}\n' for i in range(90))
    result = run_table(place, "\ufeffq,a,template\n" + body, "--group", "template")
    assert result.exit_code == 0, result.output
    assert "grader label: 3 different answers in 90 rows; choose another with --grader" in result.output
    tasks = tasks_of(place)
    assert tasks[0].messages[-1].content == 'Is aaa, really, "so"?\nSay.' and tasks[0].group == "t0"
    assert {len({t.split for t in tasks if t.group == f"t{i}"}) for i in range(30)} == {1}
    assert load_skill(place / "taxonomy", "geo/country", Settings()).grader["labels"] == list(LABELS)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_found(place: Path, delimiter: str) -> None:
    rows = "".join(f"{i} and, {i + 1}?{delimiter}{2 * i + 1}\n" for i in range(30))
    result = run_table(place, f"q{delimiter}a\n{rows}")
    assert result.exit_code == 0, result.output
    assert "grader number: every answer is a number" in result.output and len(tasks_of(place)) == 30


@pytest.mark.parametrize("delimiter, code", [("tab", 0), ("ab", 2), ('"', 2), ("\n", 2), ("", 2)])
def test_a_delimiter_that_is_given(place: Path, delimiter: str, code: int) -> None:
    rows = "".join(f"Is {words(i)}?\t{i}\n" for i in range(30))
    result = run_table(place, f"q\ta\n{rows}", "--delimiter", delimiter)
    assert result.exit_code == code and "Traceback" not in result.output, result.output


def test_splits_and_ids_of_a_table(place: Path) -> None:
    rows = "".join(f"x{i},Is {words(i)}?,{i}.5,{['Training', 'dev', 'TEST'][i % 3]}\n" for i in range(30))
    assert run_table(place, f"key,q,a,part\n{rows}", "--split", "part", "--id", "key").exit_code == 0
    tasks = tasks_of(place)
    assert [task.split for task in tasks[:3]] == ["train", "val", "test"] and tasks[7].item["id"] == "x7"


@pytest.mark.parametrize(
    "text, lines",
    [
        ("q,a\nx,1\ny\nz,1\n", ("table.csv:3: error: 1 cells, but 2 columns",)),
        ("q,a\n,3\nz,\n", ("table.csv:2: error: column 'q' is empty", "table.csv:3: error: column 'a' is empty")),
        ("q,a\nx,1\nx,2\n", ("table.csv:3: error: the same messages as ",)),
        ("q,b\nx,1\n", ("table.csv:1: no column 'a' (columns: q, b)",)),
        ("q,a,a\nx,1,2\n", ("table.csv:1: two columns 'a'",)),
        ("", ("table.csv:1: no header",)),
        ("q,a\n", ("table.csv:1: error: no rows below the header",)),
        ('q,a\n"x,1\ny,2\n', ("table.csv:2: not valid CSV: unexpected end of data",)),
        ('q,a\n"x"y,1\n', ("table.csv:2: not valid CSV",)),
        ("q,a\nx,\x00\n", ("table.csv:2: holds a NUL byte",)),
    ],
)  # fmt: skip
def test_a_bad_table_is_told_with_its_lines(place: Path, text: str, lines: tuple[str, ...]) -> None:
    refused(place, run_table(place, text), *(f"{place}/{line}" for line in lines))


def test_free_text_has_no_grader(place: Path) -> None:
    rows = "".join(f"Why {words(i)}?,Because it {words(i)} {'and so on ' * 30}.\n" for i in range(20))
    refused(place, run_table(place, f"q,a\n{rows}"), f"{place}/table.csv: error: the answers are free text")


def test_a_chosen_kind_is_held_to(place: Path) -> None:
    rows = "".join(f"Which {words(i)}?,{'seven' if i == 3 else i}\n" for i in range(20))
    result = run_table(place, f"q,a\n{rows}", "--grader", "number")
    refused(place, result, f"{place}/table.csv:5: error: the grader fails on the reference")
    assert run_table(place, f"q,a\n{rows}", "--grader", "best").exit_code == 2
    result = run_table(place, f"q,a\n{rows}", "--grader", "exact")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "references, kind",
    [
        (["2024-01-05", "1999-12-31"], "date"),
        (["2024-01-05", "2024-13-05"], "exact"),
        (["4", "1,250.5", "-3", "5%"], "number"),
        (['{"a": 1}', '{"a": 2}'], "json"),
        (["yes", "no"] * 5, "label"),
        (["yes", "Yes."] * 5, "text"),
        (["Paris", "New York", "St. Gallen"], "text"),
        (["A-17", "B-18"], "exact"),
        (["x " * 150, "no"], None),
        (["one\ntwo"], None),
        ([], None),
        ([""], None),
    ],
)
def test_which_grader_is_proposed(references: list[str], kind: str | None) -> None:
    found = propose(references, "name")
    assert (found.kind if found else None) == kind
    assert tuple(proposing.KINDS) == import_options.KINDS


CAPITALS = "".join(
    f"  - question: Capital of {country}?\n    answer: {city}\n"
    for city, country in zip(CITIES, COUNTRIES, strict=True)
)
CAPITALS_QNA = f"version: 3\ncreated_by: me\ntask_description: Name the capital.\nseed_examples:\n{CAPITALS}"
LONG = f"  - question: Why?\n    answer: {'Because it is so and was so '.strip() * 9}\n"


def test_a_skill_of_instructlab_gets_tasks_and_a_grader(place: Path) -> None:
    leaf = place / "taxonomy/compositional_skills/geo/country"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text("# mine\n" + CAPITALS_QNA + LONG)
    (leaf / "attribution.txt").write_text("Title of work: mine\n")
    before = everything(leaf)
    result = run(place, "qna")
    assert result.exit_code == 0, result.output
    assert f"{leaf}/qna.yaml:19: left out: an answer of 243 characters is free text" in result.output
    assert (
        "grader text_match: short answers in words" in result.output and "missing: tasks of your own" in result.output
    )
    assert {name: text for name, text in everything(leaf).items() if name in before} == before
    assert [task.split for task in tasks_of(place)] == ["train", "train", "train", "val", "test", "train"]
    assert run(place, "qna").exit_code == 2, "grader.json and tasks.jsonl are there now"


def test_a_qna_from_elsewhere_comes_along_as_it_is(place: Path) -> None:
    (place / "qna.yaml").write_text("# mine\n" + CAPITALS_QNA)
    result = run(place, "qna", "--qna", place / "qna.yaml", "--grader", place / "grader.json")
    assert result.exit_code == 0, result.output
    skill = load_skill(place / "taxonomy", "geo/country", Settings())
    assert (skill.directory / "qna.yaml").read_text() == "# mine\n" + CAPITALS_QNA and skill.grader == EXACT


@pytest.mark.parametrize(
    "text, line",
    [
        ("version: 3\n", "qna.yaml:1: task_description must be a text"),
        (CAPITALS_QNA.replace("Oslo", "4"), "qna.yaml:10: answer of seed example 3 must be a text"),
        (CAPITALS_QNA + "document: {}\n", "qna.yaml:17: is knowledge, not a skill"),
        (
            CAPITALS_QNA[: CAPITALS_QNA.index("  - question: Capital of Egypt")],
            "qna.yaml: error: fewer than 5 different",
        ),
        (CAPITALS_QNA.replace(CAPITALS, LONG), "qna.yaml:6: error: no seed example has an answer that a program can"),
        ("a: &a [1]\nb: *a\n", "qna.yaml:2: not valid YAML: alias"),
        (CAPITALS_QNA.replace("Paris", '"\\ud83d\\ude00"'), "qna.yaml: a text holds half a character"),
    ],
)
def test_a_bad_qna_is_told_with_its_line(place: Path, text: str, line: str) -> None:
    (place / "qna.yaml").write_text(text)
    refused(place, run(place, "qna", "--qna", place / "qna.yaml"), f"{place}/{line}")


def test_a_leaf_without_a_qna(place: Path) -> None:
    refused(place, run(place, "qna"), f"{place}/taxonomy/compositional_skills/geo/country/qna.yaml: missing file")
