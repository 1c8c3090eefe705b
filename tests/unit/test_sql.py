"""``sql``: what cannot be said in golden cases: several samples in a row, time, files, any text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.sql_child import difference, ends_in_order
from rft_ilab.grading.engine import build_grader
from rft_ilab.types import Grade
from tests.unit.taxonomies import make_rollout, make_skill, make_task

SCHEMA = "CREATE TABLE t(id INTEGER, name TEXT); INSERT INTO t VALUES (1, 'Ada'), (2, 'Bob');"
GRADER = {
    "type": "sql",
    "name": "g",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "schema": SCHEMA,
}
GOLD = "SELECT name FROM t ORDER BY id"


def grade(*completions: str, reference: Any = GOLD, **options: Any) -> list[Grade]:
    pairs = [(make_task({"reference": reference}), make_rollout(completion)) for completion in completions]
    return build_grader(make_skill({**GRADER, **options})).grade(pairs)


def test_a_query_that_hangs_costs_only_itself() -> None:
    forever = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x FROM c WHERE x > 1"
    bomb = "WITH a0 AS (SELECT 1 x)" + "".join(
        f", a{i} AS (SELECT p.x FROM a{i - 1} p, a{i - 1} q)" for i in range(1, 60)
    )
    start = time.monotonic()
    results = grade(GOLD, forever, f"{bomb} SELECT x FROM a59", GOLD, seconds=0.2)
    assert [result.score for result in results] == [1, 0, 0, 1]
    assert results[1].reason == "runs longer than 0.2 s"
    assert time.monotonic() - start < 10


def test_a_query_changes_nothing_for_the_next_one() -> None:
    results = grade("DELETE FROM t", "WITH a AS (SELECT 1) INSERT INTO t VALUES (3, 'x')", GOLD)
    assert [result.score for result in results] == [0, 0, 1]


@pytest.mark.parametrize(
    "schema",
    [
        "ATTACH '{}' AS x; CREATE TABLE x.t(a);",
        "CREATE TABLE t(a); VACUUM INTO '{}';",
        "PRAGMA temp_store_directory='{}';",
    ],
)
def test_a_schema_writes_no_file(tmp_path: Path, schema: str) -> None:
    target = tmp_path / "stolen.db"
    (result,) = grade("SELECT 1", reference="SELECT 1", schema=schema.format(target))
    assert result.error is not None and not target.exists()


def test_a_large_sort_needs_no_file() -> None:
    many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 60000) "
    query = many + "SELECT count(*) FROM (SELECT x, hex(zeroblob(50)) h FROM c ORDER BY h, x DESC LIMIT 50000)"
    (result,) = grade(query, reference="SELECT 50000")
    assert result.score == 1, result


def test_the_reference_has_limits_too() -> None:
    many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 10001) SELECT x FROM c"
    (result,) = grade("SELECT 1", reference=many)
    assert "more than 10000 rows" in (result.error or "")
    (result,) = grade("SELECT 1", reference="SELECT random()")
    assert "random" in (result.error or "")


@pytest.mark.parametrize("bad", [{"seconds": 0}, {"seconds": 6}, {"seconds": float("nan")}, {"ordered": 1}])
def test_bad_options_do_not_build(bad: dict[str, Any]) -> None:
    with pytest.raises(GraderError):
        build_grader(make_skill({**GRADER, **bad}))


@pytest.mark.parametrize(
    ("query", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True), ("SELECT a FROM t Order\n By a LIMIT 3", True), ("SELECT a FROM t",
        False),
        ("SELECT * FROM (SELECT a FROM t ORDER BY a)", False), ("SELECT 'x ORDER BY y'", False),
        ("SELECT 1 /* ORDER BY 1 */", False), ('SELECT "ORDER BY"', False),
        ("SELECT row_number() OVER (ORDER BY a) FROM t", False),
        ("SELECT 'it''s' ORDER BY 1", True), ("SELECT '", False), ("/*", False), ("ORDER /* x */ BY", False),
    ],
)  # fmt: skip
def test_order_by(query: str, ordered: bool) -> None:
    assert ends_in_order(query) is ordered


def test_rows_that_differ_by_rounding_are_paired() -> None:
    found, wanted = [(0.1 + 0.2, "b"), (0.3, "a")], [(0.3, "b"), (0.1 + 0.2, "a")]
    assert difference(found, wanted, ordered=False) == ""
    assert difference(found, wanted, ordered=True) == ""
    assert difference([(0.3, "b"), (0.3, "b")], wanted, ordered=False) != ""


CELL = (
    st.none()
    | st.integers(-3, 3)
    | st.sampled_from([0.1, 0.25, 1e300])
    | st.text("ab", max_size=2)
    | st.binary(max_size=2)
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6).flatmap(
        lambda rows: st.tuples(st.just(rows), st.permutations(rows))
    )
)
def test_the_order_of_rows_does_not_count(pair: tuple[list[Any], list[Any]]) -> None:
    rows, shuffled = pair
    assert difference(shuffled, rows, ordered=False) == ""
    assert difference(shuffled[1:], rows, ordered=False) != ""


@pytest.mark.parametrize(
    "bait",
    ["(", "SELECT ", "-- ", "/*", "'", "SELECT 1 UNION ", "x", " ", "\n", "`" * 3 + "\n", "~" * 3, "\ud800", "\0"],
)
def test_quick_on_baits(bait: str) -> None:
    start = time.monotonic()
    results = grade(bait * (1_000_000 // len(bait)), bait * (19_990 // len(bait)))
    assert [(result.score, result.error) for result in results] == [(0, None)] * 2
    assert time.monotonic() - start < 2


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec=None)) | st.text(" ();,'\"*-/", max_size=30).map("SELECT {} FROM t".format))
def test_any_text_gets_a_score(text: str) -> None:
    (result,) = grade(text)
    assert result.error is None and result.score in (0, 1)
    (result.reason + (result.answer or "")).encode()
