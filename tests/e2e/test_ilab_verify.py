"""``ilab data verify`` for real: a teacher behind an endpoint, all four sources, and the story of a candidate."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.unit.teachers import Teacher, teaching

COLOURS = {"tomato": "red", "frog": "green", "ruby": "red", "grass": "green", "cherry": "red", "fern": "green"}
GENERATOR = """
def tasks(seed):
    for n in range(900, 910):
        yield {"messages": [{"role": "user", "content": f"Thing {n}: cherry"}], "reference": "red"}
"""


def say(body: dict[str, Any]) -> str:
    asked, seed = body["messages"][-1]["content"], body["seed"]
    if asked.startswith("Rewrite"):
        return "Rewritten message: " + asked.split("Message: ")[1].split("\n")[0].replace("Thing", "Something numbered")
    if asked.startswith("These are messages"):
        return f"Thing {500 + sum(map(ord, asked)) % 90}: fern"
    right = COLOURS[asked.rsplit(" ", 1)[-1]]
    return right if seed % 5 else "It may be red or green."


@pytest.fixture
def teacher():
    with teaching() as server:
        server.say = say
        yield server


def test_a_teacher_s_data_and_its_stories(ilab, skill, teacher: Teacher):
    (skill / "generator.py").write_text(GENERATOR)
    with (ilab.taxonomy / "rft.toml").open("a") as file:
        file.write("\n[data]\nband_samples = 0\n")
    run = ilab.runs / "demo"
    options = ["--run", "demo", "--generated", 10, "--paraphrases", 8, "--questions", 6, "--samples", 2]
    command = ["data", "verify", "--endpoint", teacher.url, "--concurrency", 4, *options]
    first = ilab(*command)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{run / 'data' / 'verified.jsonl'}\n"
    assert re.search(r"at most \d+ calls: about [\d,]+ tokens to read, about [\d,]+ tokens to write", first.stderr)
    assert f"teacher: {len(teacher.calls)} calls answered" in first.stderr
    assert teacher.most_in_flight <= 4

    rows = [json.loads(line) for line in (run / "data/ledger.jsonl").read_text().splitlines()]
    kept = {row["source"] for row in rows if row["kind"] == "task" and row["disposition"] == "kept"}
    assert kept == {"authored", "generated", "paraphrase", "question"}
    verified = [json.loads(line) for line in (run / "data/verified.jsonl").read_text().splitlines()]
    assert {row["messages"][-1]["content"] for row in verified} == {"red", "green"}
    for row in verified:
        *_, question, answer = row["messages"]
        assert COLOURS[question["content"].rsplit(" ", 1)[-1]] == answer["content"]
    (parquet,) = (run / "data/rlvr").glob("open-instruct-*/train.parquet")
    assert pq.read_table(parquet).num_rows == sum(row["disposition"] == "kept" for row in rows if row["kind"] == "task")

    calls = len(teacher.calls)
    again = ilab(*command)
    assert again.returncode == 0 and "are there already" in again.stderr and len(teacher.calls) == calls

    reworded = next(row for row in rows if row["source"] == "paraphrase" and row["kind"] == "task")
    told = ilab("data", "verify", "--run", "demo", "--explain", reworded["id"][:14])
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"task {reworded['id']}: kept\n") and "Something numbered" in told.stdout
    assert re.search(r"agreement +4 of 4|agreement +3 of 4", told.stdout) and "made of" in told.stdout
    unknown = ilab("data", "verify", "--run", "demo", "--explain", "zz")
    assert unknown.returncode == 2 and "no candidate begins with 'zz'" in unknown.stderr
    assert unknown.stderr.count("\n") == 1


def test_a_teacher_that_is_never_right_is_an_error_that_says_what_to_try(ilab, teacher: Teacher):
    teacher.say = lambda body: "blue"
    with (ilab.taxonomy / "rft.toml").open("a") as file:
        file.write("\n[data]\nband_samples = 0\n")
    result = ilab("data", "verify", "--run", "demo", "--endpoint", teacher.url)
    assert result.returncode == 2 and "RL has nothing to reward" in result.stderr and "Traceback" not in result.stderr
    assert "more demonstrations" in result.stderr.splitlines()[-1]
    rows = [json.loads(line) for line in (ilab.runs / "demo/data/ledger.jsonl").read_text().splitlines()]
    answers = [row for row in rows if row["kind"] == "answer" and row["evidence"] == "sampled"]
    assert answers and all(row["disposition"] == "wrong" and row["completion"] == "blue" for row in answers)
    assert ilab("data", "verify", "--run", "demo", "--explain", answers[0]["id"]).returncode == 0
    assert not (ilab.runs / "demo/data/verified.jsonl").exists()


def test_nobody_at_the_endpoint(ilab):
    result = ilab("data", "verify", "--run", "demo", "--endpoint", "http://127.0.0.1:9/v1")
    assert result.returncode == 2 and "no model answers there" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
