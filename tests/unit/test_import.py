"""`ilab rft import`: what comes in is proven, what is wrong is told with its line, and nothing is half there."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rft_ilab.cli.export import export
from rft_ilab.cli.import_ import import_
from rft_ilab.config import Settings
from rft_ilab.grading.proof.lint import lint_taxonomy
from rft_ilab.skills.importing import source
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.types import Task
from tests.unit.taxonomies import QNA, row, write_skill

EXACT = {
    "type": "string_check", "name": "exact", "input": "{{sample.output_text}}", "reference": "{{item.reference}}",
    "operation": "eq",
}  # fmt: skip
SYSTEM = {"role": "system", "content": "Name the country."}
CITIES = ("Paris", "Rome", "Oslo", "Lima", "Cairo", "Quito")
COUNTRIES = ("France", "Italy", "Norway", "Peru", "Egypt", "Ecuador")


def words(index: int) -> str:
    """A text of letters that no other index has: rows that differ in numbers alone are alike."""
    letters = string.ascii_lowercase
    return f"{letters[index % 26]}{letters[index // 26 % 26]}{letters[index // 676]}"


def job_rows(count: int = 60) -> list[dict[str, Any]]:
    rows = []
    for index in range(count):
        city, country = CITIES[index % 6], COUNTRIES[index % 6]
        rows.append(
            {"messages": [SYSTEM, *row(f"Where is {city}, {words(index)}?", "")["messages"]], "reference": country}
        )
    return rows


def write_lines(path: Path, rows: list[Any]) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with an empty taxonomy and the files of a job."""
    (tmp_path / "taxonomy").mkdir()
    (tmp_path / "grader.json").write_text(json.dumps(EXACT))
    write_lines(tmp_path / "train.jsonl", job_rows())
    return tmp_path


def run(place: Path, kind: str, *arguments: Any, to: str = "geo/country") -> Result:
    taxonomy = ["--taxonomy-path", str(place / "taxonomy")]
    return CliRunner().invoke(import_, [kind, *map(str, arguments), "--to", to, *taxonomy])


def run_job(place: Path, *arguments: Any, to: str = "geo/country") -> Result:
    files = ["--grader", place / "grader.json", "--train", place / "train.jsonl"]
    return run(place, "openai", *files, *arguments, to=to)


def everything(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def tasks_of(place: Path, name: str = "geo/country") -> list[Task]:
    findings = lint_taxonomy(place / "taxonomy", Settings(), only=[name])
    assert [str(finding) for finding in findings if finding.severity == "error"] == []
    return list(load_tasks(load_skill(place / "taxonomy", name, Settings())))


def refused(place: Path, result: Result, *expected: str) -> None:
    """Exit code 2, each of ``expected`` begins a line, no traceback, and nothing was written."""
    assert result.exit_code == 2, result.output
    printed = result.output.splitlines()
    for line in expected:
        assert any(one.removeprefix("Error: ").startswith(line) for one in printed), f"{line}\n--\n{result.output}"
    assert "Traceback" not in result.output and list((place / "taxonomy").rglob("*")) == []


def test_a_job_becomes_a_skill_that_lints(place: Path) -> None:
    result = run_job(place)
    assert result.exit_code == 0, result.output
    assert "60 tasks (" in result.output and "8 seed examples" in result.output
    skill = load_skill(place / "taxonomy", "geo/country", Settings())
    assert skill.description == "Name the country." and skill.grader == EXACT
    assert {seed.answer for seed in skill.seeds} == set(COUNTRIES)
    tasks = tasks_of(place)
    train = {task.messages[-1].content for task in tasks if task.split == "train"}
    assert {seed.question for seed in skill.seeds} <= train, "what is judged is never shown"
    assert [task.reference for task in tasks] == [one["reference"] for one in job_rows()]
    assert "sha256" in (skill.directory / "attribution.txt").read_text()


def test_a_whole_job_with_a_validation_file_and_a_field_of_its_own(place: Path) -> None:
    rows = [{"messages": one["messages"], "country": one["reference"], "answer": "see country"} for one in job_rows(90)]
    rows[0]["messages"][0] = {"role": "developer", "content": [{"type": "text", "text": "Name the country."}]}
    write_lines(place / "train.jsonl", rows[:60])
    write_lines(place / "val.jsonl", rows[60:])
    grader = EXACT | {"reference": "{{item.country}}"}
    method = {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": {"n_epochs": 2}}}
    (place / "grader.json").write_text(json.dumps({"model": "o4-mini", "training_file": "file-1", "method": method}))
    result = run_job(place, "--val", place / "val.jsonl")
    assert result.exit_code == 0, result.output
    assert "not taken over: hyperparameters of the job" in result.output
    assert "the right answer is the field 'country'" in result.output
    tasks = tasks_of(place)
    assert [task.split for task in tasks[60:]] == ["test"] * 30 and {t.split for t in tasks[:60]} == {"train", "val"}
    assert tasks[0].item["answer"] == "see country" and tasks[0].reference == "France"
    assert len({task.messages[0] for task in tasks}) == 1
    again = run_job(place, "--val", place / "val.jsonl", "--val-split", "val", to="geo/other")
    assert "there is no test split" in again.output
    assert {task.split for task in tasks_of(place, "geo/other")} == {"train", "val"}


def test_rows_with_different_system_messages_keep_them(place: Path) -> None:
    rows = job_rows()
    rows[3]["messages"][0] = {"role": "system", "content": "Be brief."}
    write_lines(place / "train.jsonl", rows)
    refused(place, run_job(place), f"{place}/train.jsonl:1: error: no description of the skill")
    assert run_job(place, "--description", "Name it.").exit_code == 0
    assert [task.messages[0].content for task in tasks_of(place)][2:4] == ["Name the country.", "Be brief."]


@pytest.mark.parametrize(
    "content, line",
    [
        (b"\xff\xfe{\x00}\x00\n\x00", "train.jsonl:1: is UTF-16 or UTF-32, not UTF-8 (save the file as UTF-8)"),
        (b'{"a": 1}\n{"a":\x00 1}\n', "train.jsonl:2: holds a NUL byte"),
        (b'{"messages": []}\n\xe9\n', "train.jsonl:2: not valid UTF-8 (save"),
        (b"[" * (1 << 20) + b"[", "train.jsonl:1: a line of more than 1 MB"),
        (b"", "train.jsonl: error: no rows"),
        (b"\n\n", "train.jsonl: error: no rows"),
        (b"{}\n", "train.jsonl:1: error: no messages"),
        (b"[1]\n", "train.jsonl:1: error: not a JSON object"),
        (b'{"messages": [\n', "train.jsonl:1: error: not valid JSON"),
        (b'{"messages": [1]}\n', "train.jsonl:1: error: message 1 is no object"),
        (b'{"messages": [], "messages": []}\n', "train.jsonl:1: error: not valid JSON: duplicate key 'messages'"),
        (b'{"messages": [{"role": "user", "content": "\\u0000"}]}\n', "train.jsonl:1: error: a text holds a NUL"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}\n', "train.jsonl:1: error: a string holds half a"),
        (b'{"messages": [{"role": "user", "text": "x"}]}\n', "train.jsonl:1: error: message 1 must have"),
        (b'{"messages": [{"role": 1, "content": "x"}]}\n', "train.jsonl:1: error: message 1 must have"),
        (b"[" * 5000 + b"\n", "train.jsonl:1: error: not valid JSON"),
        (
            b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}], "reference": "x"}\n',
            "train.jsonl:1: error: message 1 has parts that are no text",
        ),
        (
            b'{"messages": [{"role": "user", "content": "x"}], "tools": [{}], "reference": "x"}\n',
            "train.jsonl:1: error: the row has tools",
        ),
    ],
)  # fmt: skip
def test_hostile_rows_are_told_with_their_line(place: Path, content: bytes, line: str) -> None:
    (place / "train.jsonl").write_bytes(content)
    refused(place, run_job(place, "--description", "x"), f"{place}/{line}")


@pytest.mark.parametrize(
    "content, line",
    [
        ("", "grader.json:1: not valid JSON"),
        ("[]", "grader.json:1: must be one JSON object"),
        ("{}", "grader.json:1: a grader without a type"),
        ('{"type": "exec"}', "grader.json:1: unknown grader type 'exec'"),
        ('{"method": {"type": "dpo"}}', "grader.json:1: a job without method.reinforcement.grader"),
        (json.dumps(EXACT | {"operation": "is"}), "grader.json:1: "),
        ('{"type": "ref", "name": "../../x"}', "grader.json:1: bad name '../../x' of a ref"),
        ('{"type": "python", "source": "import os\\ndef grade(s, i): return float(os.environ"}', "grader.json:1: "),
    ],
)
def test_a_bad_grader_is_told(place: Path, content: str, line: str) -> None:
    (place / "grader.json").write_text(content)
    refused(place, run_job(place), f"{place}/{line}")


def test_a_byte_order_mark_and_windows_line_ends_are_no_obstacle(place: Path) -> None:
    text = (place / "train.jsonl").read_text()
    (place / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert run_job(place).exit_code == 0
    assert len(tasks_of(place)) == 60


def test_what_is_wrong_between_rows(place: Path) -> None:
    rows = job_rows(30)
    rows[1]["id"] = rows[2]["id"] = "same"
    write_lines(place / "train.jsonl", rows)
    file = place / "train.jsonl"
    refused(place, run_job(place), f"{file}:3: error: id 'same' is also that of {file}:2 (give every row its own id)")
    rows = [*job_rows(30), job_rows(30)[4] | {"reference": "France"}]
    write_lines(file, rows)
    refused(place, run_job(place), f"{file}:31: error: the same messages as {file}:5 with another answer")
    rows = job_rows(30)
    for index, split in ((0, "train"), (1, "test")):
        rows[index] |= {"group": "g", "split": split}
    write_lines(file, rows)
    refused(place, run_job(place), f"{file}:2: error: group 'g' is in test here and in train at {file}:1")
    write_lines(file, job_rows(30))
    write_lines(place / "val.jsonl", job_rows(1))
    refused(
        place, run_job(place, "--val", place / "val.jsonl"),
        f"{place}/val.jsonl:1: error: the same messages as {file}:1, which is in another split",
    )  # fmt: skip
    write_lines(file, [*job_rows(30), *job_rows(30)])
    assert "30 rows that were there twice were left out" in run_job(place).output
    assert len(tasks_of(place)) == 30


def test_a_reference_that_the_grader_refuses_is_told_with_its_line(place: Path) -> None:
    rows = job_rows()
    rows[7]["reference"] = "42"
    (place / "grader.json").write_text(json.dumps(EXACT | {"reference": "{{item.country}}"}))
    rows = [one | {"country": one["reference"] if i != 7 else "Italy"} for i, one in enumerate(rows)]
    write_lines(place / "train.jsonl", rows)
    file = place / "train.jsonl"
    refused(place, run_job(place), f"{file}:8: error: the grader refuses the reference '42'", "1 error; nothing was")
    del rows[9]["reference"]
    write_lines(file, rows)
    refused(place, run_job(place), f"{file}:10: error: no reference")


def test_rows_without_any_right_answer(place: Path) -> None:
    write_lines(place / "train.jsonl", [{"messages": one["messages"], "topic": "geo"} for one in job_rows()])
    refused(place, run_job(place), f"{place}/train.jsonl:1: error: no field of the row is known to be a right answer")


def test_a_grader_that_can_be_cheated_is_refused(place: Path) -> None:
    always = {"type": "python", "name": "easy", "source": "def grade(sample, item):\n    return 1.0"}
    (place / "grader.json").write_text(json.dumps(always))
    result = run_job(place)
    refused(place, result, f"{place}/")
    assert "errors; nothing was written" in result.output


def test_waivers_come_along(place: Path) -> None:
    likes = EXACT | {"operation": "ilike"}
    (place / "grader.json").write_text(json.dumps(likes))
    (place / "why.json").write_text('{"substring": ""}')
    result = run_job(place, "--waivers", place / "why.json")
    refused(place, result, f"{place}/why.json")
    names = {line.split('why "')[1].split('"')[0] for line in result.output.splitlines() if 'why "' in line}
    (place / "why.json").write_text(json.dumps(dict.fromkeys(names, "answers are short here")))
    result = run_job(place, "--waivers", place / "why.json")
    assert result.exit_code == 0, result.output
    assert (place / "taxonomy/compositional_skills/geo/country/grader.waivers.json").exists() and tasks_of(place)


def test_too_few_rows_for_seed_examples(place: Path) -> None:
    write_lines(place / "train.jsonl", [one | {"split": "train"} for one in job_rows(4)])
    refused(
        place, run_job(place), f"{place}/train.jsonl:1: error: only 4 different questions of one turn to show as seed"
    )


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "A", "", "a//b"])
def test_a_name_that_leads_elsewhere(place: Path, name: str) -> None:
    refused(place, run_job(place, to=name), f"{place}/taxonomy/compositional_skills: bad skill name")


def test_force_and_dry_run(place: Path) -> None:
    result = run_job(place, "--dry-run")
    assert result.exit_code == 0 and "would write" in result.output and list((place / "taxonomy").rglob("*")) == []
    assert run_job(place).exit_code == 0
    before = everything(place)
    write_lines(place / "train.jsonl", job_rows(40))
    result = run_job(place)
    assert result.exit_code == 2 and "is there already" in result.output
    assert everything(place / "taxonomy") == {k.removeprefix("taxonomy/"): v for k, v in before.items() if "taxo" in k}
    assert run_job(place, "--force").exit_code == 0 and len(tasks_of(place)) == 40


def test_a_large_file_is_taken_as_far_as_asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_ROWS", 50)
    refused(place, run_job(place), f"{place}/train.jsonl:51: more than 50 lines, or 64 MB of them (take the first")
    assert run_job(place, "--limit", 30).exit_code == 0
    assert len(tasks_of(place)) == 30


def test_only_the_lines_that_are_taken_are_read(place: Path) -> None:
    with (place / "train.jsonl").open("ab") as file:
        file.write(b"\x00not read\n")
    assert run_job(place, "--limit", 60).exit_code == 0


CONTENT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(str.strip)
TASK = st.fixed_dictionaries(
    {"prompt": CONTENT, "reference": st.sampled_from(["yes", "no", "Grüße, Welt", "4", "2024-01-05"])},
    optional={
        "id": st.uuids().map(str), "group": st.sampled_from(["a", "b"]), "note": CONTENT, "before": CONTENT,
        "n": st.integers() | st.none(),
    },
)  # fmt: skip


# Not shrunk: every example is linted twice.
@settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)  # fmt: skip
@given(
    rows=st.lists(
        TASK, min_size=6, max_size=12, unique_by=(lambda one: one["prompt"], lambda one: one.get("id", one["prompt"]))
    ),
    description=CONTENT.map(str.strip),
)
def test_an_export_for_openai_comes_back_as_the_same_tasks(
    tmp_path_factory: Any, rows: list[Any], description: str
) -> None:
    place = tmp_path_factory.mktemp("round")
    made = []
    for index, one in enumerate(rows):
        split = {"a": "train", "b": "val"}.get(one.get("group", ""), "val" if index == 5 else "train")
        fields = {key: value for key, value in one.items() if key not in ("prompt", "reference", "before")}
        made.append(row(one["prompt"], one["reference"], split=split, **fields))
        if "before" in one:
            made[-1]["messages"][:0] = [
                {"role": "user", "content": one["before"]},
                {"role": "assistant", "content": "?"},
            ]
    single = [one for one in made if len(one["messages"]) == 1 and one["split"] == "train"]
    made += [row(f"More {words(i)}?", "yes", split="train") for i in range(max(0, 5 - len(single)))]
    qna = QNA.replace("Answer YES, NO or MAYBE.", json.dumps(description, ensure_ascii=False))
    write_skill(place / "first", "area/skill", grader=EXACT, rows=made, qna=qna)
    (place / "taxonomy").mkdir()
    skill = load_skill(place / "first", "area/skill", Settings())
    out = CliRunner().invoke(
        export, ["openai", "area/skill", "--output", str(place / "job"), "--taxonomy-path", str(place / "first")]
    )  # fmt: skip
    assert out.exit_code == 0, out.output
    files = [
        "--grader",
        place / "job/job.json",
        "--train",
        place / "job/train.jsonl",
        "--val",
        place / "job/validation.jsonl",
    ]
    result = run(place, "openai", *files, to="area/skill")
    assert result.exit_code == 0, result.output
    before = {task.id: task for task in load_tasks(skill)}
    after = {task.id: task for task in load_tasks(load_skill(place / "taxonomy", "area/skill", Settings()))}
    assert set(after) == set(before)
    for id, task in after.items():
        old = before[id]
        assert (task.messages, task.reference, task.group, task.split) == (
            old.messages,
            old.reference,
            old.group,
            old.split,
        )
        assert {**old.item, "group": old.group, "split": old.split} == dict(task.item)


def test_foreign_texts_cannot_command_the_terminal(place: Path) -> None:
    rows = job_rows(30)
    rows[2]["reference"] = "\x1b[2J\u202e"
    (place / "grader.json").write_text(json.dumps(EXACT | {"reference": "Peru"}))
    write_lines(place / "train.jsonl", rows)
    result = run_job(place)
    assert result.exit_code == 2 and "\x1b" not in result.output and "\u202e" not in result.output


def test_any_bytes_end_in_a_line_and_never_in_a_traceback(place: Path) -> None:
    draw = random.Random(0)
    good = (place / "train.jsonl").read_bytes()
    for _ in range(16):
        broken = bytearray(good)
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(broken))
            broken[at : at + draw.randrange(3)] = bytes(draw.randrange(256) for _ in range(draw.randrange(3)))
        (place / "train.jsonl").write_bytes(broken)
        result = run_job(place, "--dry-run", "--limit", 20)
        assert result.exit_code in (0, 2) and "Traceback" not in result.output
        assert list((place / "taxonomy").rglob("*")) == []
