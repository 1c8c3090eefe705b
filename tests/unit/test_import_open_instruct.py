"""``ilab rft import open-instruct``: rows become skills that lint accepts, and what is left out is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rft_ilab.cli.import_ import import_
from rft_ilab.config import Settings
from rft_ilab.grading.engine import build_grader
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill

WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow", "yew"]
WORDS += ["alder", "beech", "lime", "holly", "spruce"]

NO_COMMA = "[{'instruction_id': ['punctuation:no_comma'], 'kwargs': [None]}]"


def rlvr(question: str, label: Any, verifier: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "ground_truth": label, "dataset": verifier, **more}


SUMS = [
    rlvr(f"What do {a} and {word} twigs weigh?", str(n * 7), "gsm8k")
    for n, (a, word) in enumerate(zip(WORDS, WORDS[::-1], strict=True))
]
TREES = [rlvr(f"Name the tree that is spelt {'-'.join(word)}.", [word], ["string_matcher"]) for word in WORDS]


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def bring(tmp_path: Path, data: Path, *arguments: str) -> Result:
    taxonomy = tmp_path / "taxonomy"
    (taxonomy / "compositional_skills").mkdir(parents=True, exist_ok=True)
    command = ["open-instruct", str(data), "--taxonomy-path", str(taxonomy), "--created-by", "tests", *arguments]
    return CliRunner().invoke(import_, command)


def tasks_of(tmp_path: Path, name: str) -> Any:
    skill = load_skill(tmp_path / "taxonomy", name, Settings())
    tasks = load_tasks(skill)
    grades = build_grader(skill).grade_texts([(task, task.reference) for task in tasks])
    assert all(grade.passed for grade in grades)
    return skill, tasks


def test_one_verifier_is_one_skill(tmp_path: Path) -> None:
    done = bring(tmp_path, jsonl(tmp_path / "data.jsonl", SUMS), "--to", "maths/twigs", "--license", "CC0-1.0")
    assert done.exit_code == 0, done.output
    skill, tasks = tasks_of(tmp_path, "maths/twigs")
    assert skill.grader["type"] == "number" and len(tasks) == len(SUMS) and tasks[1].reference == "7"
    assert skill.description == "Solve the problem. End with the answer as a number."
    assert "License of the work: CC0-1.0" in (skill.directory / "attribution.txt").read_text()


def test_several_verifiers_and_what_is_left_out(tmp_path: Path) -> None:
    odd = [
        rlvr("Is it so?", "?", "general-quality"), rlvr("Write.", NO_COMMA, "ifeval"),
        rlvr("Which article?", "the", "string_matcher"),
        rlvr(TREES[0]["messages"][0]["content"], ["oak"], ["string_matcher"]),
    ]  # fmt: skip
    data = jsonl(tmp_path / "rows" / "train.jsonl", [*SUMS, *TREES, *odd])
    done = bring(tmp_path, data.parent, "--to", "trees")
    assert done.exit_code == 0, done.output
    assert len(tasks_of(tmp_path, "trees/gsm8k")[1]) == len(tasks_of(tmp_path, "trees/string_matcher")[1]) == len(WORDS)
    for line in (
        "left out: 1 rows with general-quality", "a language model judges it", "left out: 1 rows with ifeval",
        "no answer",
        "1 rows left out: nothing is left of the label", "1 rows left out: the same messages as a row before it",
    ):  # fmt: skip
        assert line in done.output, line
    only = bring(tmp_path, data.parent, "--to", "string_matcher=only/trees")
    assert only.exit_code == 0 and "left out: 18 rows with gsm8k" in only.output
    assert tasks_of(tmp_path, "only/trees")[1][0].reference == "<answer>ash</answer>"


def test_splits_of_files_and_the_system_message(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Name the tree."}
    rows = [{**row, "messages": [system, *row["messages"]]} for row in TREES]
    parquet(tmp_path / "rows/train-00000-of-00001.parquet", rows[:13])
    parquet(tmp_path / "rows/test-00000-of-00001.parquet", rows[12:])
    done = bring(tmp_path, tmp_path / "rows", "--to", "trees/names")
    assert done.exit_code == 0, done.output
    skill, tasks = tasks_of(tmp_path, "trees/names")
    assert skill.description == "Name the tree." and [m.role for m in tasks[0].messages] == ["system", "user"]
    assert sum(task.split == "test" for task in tasks) == 6 and len(tasks) == 18
    assert "1 rows left out: the same messages as a row before it" in done.output  # test wins


def test_rows_that_bring_their_answer(tmp_path: Path) -> None:
    rows = [
        rlvr(f"Write of the {word}, without commas.", NO_COMMA, "ifeval", good=f"The {word} grows.") for word in WORDS
    ]
    rows[3]["good"] = "The elm, too."
    done = bring(tmp_path, jsonl(tmp_path / "a.jsonl", rows), "--to", "write/trees", "--answer", "good")
    assert done.exit_code == 0 and "1 rows left out: the grader does not accept the answer" in done.output, done.output
    assert len(tasks_of(tmp_path, "write/trees")[1]) == 17
    turns = [{**row, "messages": [*row["messages"], {"role": "assistant", "content": row["good"]}]} for row in rows]
    done = bring(tmp_path, jsonl(tmp_path / "b.jsonl", turns), "--to", "write/more")
    assert done.exit_code == 0 and len(tasks_of(tmp_path, "write/more")[1]) == 17


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], "no rows"), (["{"], "data.jsonl:1: not valid JSON"), ([{"messages": []}], "no column 'ground_truth'"),
        ([rlvr("q", ["1", "2"], ["gsm8k"])], "2 labels for 1 verifiers"),
        ([rlvr("q", "1", 3)], "dataset must name verifiers"),
        ([rlvr("q", "1", "gsm8k") | {"messages": [{"role": "tool", "content": "x"}]}], "has the role 'tool'"),
        ([rlvr("q", "none", "gsm8k")], "has no number (1 rows)"),
        ([rlvr("q", "1", "mine")], "mine: no verifier of Open-Instruct"),
        ([rlvr("q", "1", "passthrough")], "passthrough: it gives every answer the same reward"),
        ([rlvr("q\ud800", "1", "gsm8k")], "half a character"), ([rlvr("q", "1", "gsm8k")], "seed examples"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used(tmp_path: Path, rows: list[Any], what: str) -> None:
    done = bring(tmp_path, jsonl(tmp_path / "data.jsonl", rows), "--to", "a/b")
    assert done.exit_code == 2 and what in done.output and "Traceback" not in done.output, done.output
    assert not list((tmp_path / "taxonomy/compositional_skills").iterdir())


def test_names_that_fit_nothing(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "data.jsonl", [SUMS[0], TREES[0]])
    for names, what in (
        (["math=a/b"], "no row names the verifier math (there are gsm8k, string_matcher)"),
        (["a/b", "a/c"], "say which verifier"),
        (["gsm8k=../x"], "bad skill name"),
    ):  # fmt: skip
        done = bring(tmp_path, data, *(part for name in names for part in ("--to", name)))
        assert done.exit_code == 2 and what in done.output, done.output
    (tmp_path / "fake.parquet").write_bytes(b"PAR1 no")
    done = bring(tmp_path, tmp_path / "fake.parquet", "--to", "a/b")
    assert done.exit_code == 2 and "not a Parquet file that can be read" in done.output
