"""Reading skills: the tree, rft.toml against it, tasks, splits, prompts, and every way in which they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.config import Settings, SkillSettings
from rft_ilab.errors import SkillError
from rft_ilab.skills.reading import canonical_json, parse_json, read_yaml
from rft_ilab.skills.tasks import build_prompt, class_of, draw_split, load_tasks, scan_tasks
from rft_ilab.skills.tree import find_skills, load_skill
from rft_ilab.types import Skill
from tests.unit.repositories import commit_all
from tests.unit.taxonomies import LABEL_GRADER, LABELS, QNA, row, write_skill

NAME = "area/skill"


def load(taxonomy: Path, **parts: Any) -> Skill:
    write_skill(taxonomy, NAME, **parts)
    return load_skill(taxonomy, NAME, Settings())


def test_find_skills_reads_ours_and_leaves_plain_ones_alone(tmp_path: Path) -> None:
    write_skill(tmp_path, "b/second")
    write_skill(tmp_path, "a/first")
    plain = tmp_path / "compositional_skills/a/plain"
    plain.mkdir()
    (plain / "qna.yaml").write_text(QNA)
    first, second = find_skills(tmp_path, Settings(skills={"a/first": SkillSettings(tier="target")}))
    assert (first.name, first.tier, second.name, second.tier) == ("a/first", "target", "b/second", "supporting")
    assert first.description == "Answer YES, NO or MAYBE."
    assert [seed.answer for seed in first.seeds] == ["YES", "NO", "MAYBE", "YES", "NO", "MAYBE"]
    assert first.grader == LABEL_GRADER
    assert first.grader_digest == second.grader_digest
    assert first.commit == "unversioned"


def test_commit_follows_the_leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = write_skill(tmp_path)
    commit = commit_all(tmp_path, "one")
    (tmp_path / "elsewhere").write_text("x")
    commit_all(tmp_path, "two")
    assert load_skill(tmp_path, NAME, Settings()).commit == commit
    (leaf / "attribution.txt").write_text("changed\n")
    assert load_skill(tmp_path, NAME, Settings()).commit == f"{commit}+dirty"
    # What a hook of another repository's leaves in the environment is not where the leaf is.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another" / ".git"))
    assert load_skill(tmp_path, NAME, Settings()).commit == f"{commit}+dirty"


@pytest.mark.parametrize(
    ("place", "name", "content", "kind"),
    [
        ("graders", "same.json", json.dumps(LABEL_GRADER), "label"),
        ("taxonomy/graders", "same.json", json.dumps(LABEL_GRADER), "label"),
        ("graders", "same.py", "def grade(sample, item): return 1.0\n", "python"),
    ],
)
def test_ref_is_resolved(tmp_path: Path, place: str, name: str, content: str, kind: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / name).write_text(content)
    skill = load(tmp_path / "taxonomy", grader={"type": "ref", "name": "same", "pass_threshold": 0.5})
    assert (skill.grader["type"], skill.grader["pass_threshold"]) == (kind, 0.5)
    before = skill.grader_digest
    (tmp_path / place / name).write_text(content.replace("1.0", "0.5").replace("MAYBE", "PERHAPS"))
    assert load_skill(tmp_path / "taxonomy", NAME, Settings()).grader_digest != before


def test_refs_inside_a_multi_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "graders").mkdir()
    (tmp_path / "graders/same.json").write_text(json.dumps(LABEL_GRADER | {"pass_threshold": 0.5}))
    multi = {"type": "multi", "graders": {"a": {"type": "ref", "name": "same"}}, "calculate_output": "a"}
    assert load(tmp_path / "taxonomy", grader=multi).grader["graders"] == {"a": LABEL_GRADER}


@pytest.mark.parametrize(
    ("grader", "what", "line"),
    [
        ('{"type":\n "label",}', "not valid JSON", 2),
        ("", "not valid JSON", 1),
        ("[]", "exactly one JSON object", 1),
        ('{"type": "label"} {"type": "label"}', "not valid JSON", 1),
        ('{"a": 1, "a": 2}', "duplicate key 'a'", 1),
        ('{"a": NaN}', "NaN is not JSON", 1),
        ('{"a": 1e999}', "out of range", 1),
        ('{"a": ' + "[" * 100_000 + "}", "not valid JSON", 1),
        ({"type": "ref", "name": "../../secret"}, "bad name", 1),
        ({"type": "ref", "name": "absent"}, "no grader named 'absent'", 1),
        ({"type": "ref", "name": "x", "source": ""}, "unknown key 'source'", 1),
        ('{"a": "\\ud800"}', "lone surrogate", 1),
    ],
)
def test_bad_grader_json_is_one_clear_error(tmp_path: Path, grader: Any, what: str, line: int) -> None:
    with pytest.raises(SkillError, match=what) as caught:
        load(tmp_path, grader=grader)
    assert (caught.value.where, caught.value.line) == (tmp_path / "compositional_skills/area/skill/grader.json", line)


def test_a_shared_grader_cannot_be_a_ref_and_cannot_be_two(tmp_path: Path) -> None:
    (tmp_path / "graders").mkdir()
    (tmp_path / "graders/loop.json").write_text('{"type": "ref", "name": "loop"}')
    with pytest.raises(SkillError, match="cannot itself be a ref"):
        load(tmp_path / "taxonomy", grader={"type": "ref", "name": "loop"})
    (tmp_path / "graders/loop.py").write_text("")
    with pytest.raises(SkillError, match="two graders named 'loop'"):
        load(tmp_path / "taxonomy", grader={"type": "ref", "name": "loop"})


@pytest.mark.parametrize("file", ["grader.json", "tasks.jsonl", "qna.yaml"])
def test_missing_file_is_named(tmp_path: Path, file: str) -> None:
    leaf = write_skill(tmp_path)
    (leaf / file).unlink()
    with pytest.raises(SkillError, match="missing file") as caught:
        find_skills(tmp_path, Settings())
    assert caught.value.where == leaf / file and caught.value.fix


@pytest.mark.parametrize("file", ["grader.json", "tasks.jsonl", "qna.yaml", "attribution.txt", "extra"])
def test_symlinks_are_refused(tmp_path: Path, file: str) -> None:
    leaf = write_skill(tmp_path)
    (leaf / file).unlink(missing_ok=True)
    (leaf / file).symlink_to("/etc/hostname")
    with pytest.raises(SkillError, match="symbolic link"):
        load_skill(tmp_path, NAME, Settings())


def test_symlinked_area_is_refused(tmp_path: Path) -> None:
    write_skill(tmp_path, "real/skill")
    (tmp_path / "compositional_skills/other").symlink_to(tmp_path / "compositional_skills/real")
    assert [skill.name for skill in find_skills(tmp_path, Settings())] == ["real/skill"]
    with pytest.raises(SkillError, match="symbolic link"):
        load_skill(tmp_path, "other/skill", Settings())


@pytest.mark.parametrize(
    "name",
    ["Area/skill", "area/my skill", "area/skill-2", "../area/skill", "area//skill", "", "a" * 5000, "a/" * 2500 + "a"],
)
def test_names_are_plain(tmp_path: Path, name: str) -> None:
    write_skill(tmp_path)
    with pytest.raises(SkillError, match="bad skill name"):
        load_skill(tmp_path, name, Settings())


def test_absent_and_empty_taxonomies_and_unknown_skills_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SkillError, match="no compositional_skills directory"):
        find_skills(tmp_path, Settings())
    (tmp_path / "compositional_skills/a").mkdir(parents=True)
    with pytest.raises(SkillError, match="no skill with a"):
        find_skills(tmp_path, Settings())
    write_skill(tmp_path)
    with pytest.raises(SkillError, match=r"rft\.toml.*names no skill"):
        find_skills(tmp_path, Settings(skills={"area/gone": SkillSettings()}))


@pytest.mark.parametrize(
    ("qna", "what", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a'", 3),
        ("a: &x [1]\nb: *x\n", "alias", 2),
        ("a: &x {b: 1}\nc:\n  <<: {d: 1}\n", "merge key", 3),
        ("a: " + "[" * 40 + "]" * 40 + "\n", "nested more than 32", 1),
        ("a: [1\nb: 2\n", "not valid YAML", 2),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML", 1),
        ("a: 2024-13-45\n", "not valid YAML", None),
        ("", "empty file", None),
        ("- a\n", "must be a mapping", 1),
        ("version: 3\n", "task_description must be a text", 1),
        ("task_description: d\nseed_examples: 3\n", "seed_examples must be a list", 2),
        ("task_description: d\nseed_examples:\n- question: q\n  answer: no\n", "answer of seed example 1 .* False", 4),
        ("task_description: d\nseed_examples:\n- question: 2024-01-05\n  answer: a\n", "question of seed example 1", 3),
        ("task_description: d\nseed_examples:\n- question: q\n", "answer of seed example 1", 3),
        ("#" * 300_000, "more than the limit", None),
    ],
)
def test_bad_yaml_is_one_clear_error(tmp_path: Path, qna: str, what: str, line: int | None) -> None:
    with pytest.raises(SkillError, match=what) as caught:
        load(tmp_path, qna=qna)
    assert caught.value.line == line


def test_yaml_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "q.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(SkillError, match="not valid UTF-8") as caught:
        read_yaml(tmp_path / "q.yaml")
    assert caught.value.line == 2


def test_task_with_defaults(tmp_path: Path) -> None:
    (task,) = load_tasks(load(tmp_path, rows=[row("Is it?", "YES", difficulty=3)]))
    assert [m.as_dict() for m in task.messages] == [
        {"role": "system", "content": "Answer YES, NO or MAYBE."},
        {"role": "user", "content": "Is it?"},
    ]
    assert task.item == {"reference": "YES", "difficulty": 3}
    assert (task.reference, task.origin, task.split) == ("YES", "authored", draw_split(task.group))


def test_own_system_turn_stays_and_the_split_survives_another_description(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "Is it?"}]
    own, plain = load_tasks(load(tmp_path, rows=[{"messages": messages, "reference": "NO"}, row("Is it?", "NO")]))
    assert own.messages[0].content == "Mine."
    changed = load(tmp_path, rows=[row("Is it?", "NO")], qna=QNA.replace("Answer", "Say"))
    (after,) = load_tasks(changed)
    assert after.id != plain.id and (after.group, after.split) == (plain.group, plain.split)


@pytest.mark.parametrize(
    ("fields", "reference"),
    [
        ({"reference_answer": "a", "answer": "b", "expected": "c"}, "a"),
        ({"answer": "b", "expected": "c"}, "b"),
        ({"expected": "c"}, "c"),
        ({"answer": {"b": 1, "a": [True, None]}}, '{"a": [true, null], "b": 1}'),
        ({"answer": ["é"]}, '["é"]'),
        ({"answer": 0}, "0"),
        ({"answer": False}, "false"),
    ],
)
def test_reference_is_the_first_field_present(tmp_path: Path, fields: dict[str, Any], reference: str) -> None:
    messages = [{"role": "user", "content": "Q"}]
    (task,) = load_tasks(load(tmp_path, rows=[{"messages": messages, **fields}]))
    assert task.reference == reference
    assert task.item["reference"] == next(iter(fields.values()))


GOOD = row("Good?", "YES", split="train")


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("{not json}", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"messages": [], "reference": NaN}', "NaN is not JSON"),
        ('{"messages": [], "messages": []}', "duplicate key 'messages'"),
        ({"reference": "a"}, "no messages"),
        ({"messages": [], "reference": "a"}, "no messages"),
        ({"messages": ["hello"], "reference": "a"}, "message 1 must have exactly role and content"),
        ({"messages": [{"role": "user", "content": ["parts"]}], "reference": "a"}, "message 1 has no text"),
        ({"messages": [{"role": "user", "content": " "}], "reference": "a"}, "message 1 has no text"),
        ({"messages": [{"role": "tool", "content": "x"}], "reference": "a"}, "has the role 'tool'"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}], "reference": "a"},
            "has the role 'system'",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}], "reference": "a"},
            "last message is not from the user",
        ),
        ({"messages": [{"role": "user", "content": "x"}]}, "no reference"),
        (row("x", None), "no reference"),
        (row("x", " \n"), "the reference is empty"),
        (row("x", "a", split="dev"), "bad split 'dev'"),
        (row("x", "a", origin="model"), "bad origin 'model'"),
        (row("x", "a", origin="synthetic", split="test"), "cannot be in the test split"),
        (row("x", "a", id=[]), "id must be a text"),
        (row("x", "a", group=True), "group must be a text"),
        ('{"messages": [{"role": "user", "content": "\\ud83d"}], "reference": "a"}', "lone surrogate"),
        ('{"n": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_every_bad_line_is_named_with_its_repair(tmp_path: Path, bad: Any, what: str) -> None:
    skill = load(tmp_path, rows=[GOOD, "", bad, "{"])
    with pytest.raises(SkillError, match=what) as caught:
        load_tasks(skill)
    assert (caught.value.where, caught.value.line) == (skill.directory / "tasks.jsonl", 3)
    assert caught.value.fix and "\n" not in str(caught.value)
    assert len(scan_tasks(skill)[1]) == 2  # all of them, not only the first


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (row("a", "YES", id="x"), row("b", "NO", id="x"), "id 'x' is also that of line 1"),
        (row("a", "YES"), row("a", "YES"), "same messages and reference as line 1"),
        (row("a", "YES", id="x"), row("a", "YES", id="y"), "same messages and reference as line 1"),
        (
            row("a", "YES", group="g", split="train"),
            row("b", "NO", group="g", split="test"),
            "group 'g' is in test here and in train on line 1",
        ),
    ],
)
def test_rows_that_contradict_each_other_name_both_lines(tmp_path: Path, first: Any, second: Any, what: str) -> None:
    with pytest.raises(SkillError, match=what) as caught:
        load_tasks(load(tmp_path, rows=[first, second]))
    assert caught.value.line == 2


@pytest.mark.parametrize("content", [[], ["", "  "]])
def test_an_empty_file_is_an_error(tmp_path: Path, content: list[str]) -> None:
    with pytest.raises(SkillError, match="no tasks"):
        load_tasks(load(tmp_path, rows=content))


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    skill = load(tmp_path)
    with (skill.directory / "tasks.jsonl").open("r+b") as file:
        file.truncate(65 << 20)  # sparse
    with pytest.raises(SkillError, match="more than the limit"):
        load_tasks(skill)


def test_unicode_line_separators_inside_a_string_do_not_end_the_line(tmp_path: Path) -> None:
    raw = json.dumps(row("a\u2028b\u0085c", "YES"), ensure_ascii=False)
    (task,) = load_tasks(load(tmp_path, rows=[raw]))
    assert task.messages[-1].content == "a\u2028b\u0085c"


def test_splits_are_70_10_20_and_synthetic_is_never_test() -> None:
    drawn = [draw_split(f"group-{i}") for i in range(5000)]
    assert [round(drawn.count(split) / 5000, 1) for split in ("train", "val", "test")] == [0.7, 0.1, 0.2]
    assert "test" not in {draw_split(f"group-{i}", "synthetic") for i in range(500)}
    assert [draw_split(f"group-{i}") for i in (0, 1, 9)] == ["train", "test", "val"]  # for ever


def test_prompt_shows_each_answer_once_before_any_twice(tmp_path: Path) -> None:
    seeds = [("q0", "A"), ("q1", "A"), ("q2", "B"), ("q3", "C"), ("q4", "B")]
    text = "".join(f"- question: {q}\n  answer: {a}\n" for q, a in seeds)
    skill = load(tmp_path, qna=f"task_description: D\nseed_examples:\n{text}", rows=[row("new", "YES")])
    (task,) = load_tasks(skill)

    def asked(n: int) -> list[str]:
        return [m.content for m in build_prompt(skill, task, n).messages if m.role == "user"][:-1]

    assert asked(0) == [] and asked(3) == ["q0", "q2", "q3"] and asked(4) == ["q0", "q1", "q2", "q3"]
    assert asked(99) == ["q0", "q1", "q2", "q3", "q4"]
    roles = [m.role for m in build_prompt(skill, task, 1).messages]
    assert roles == ["system", "user", "assistant", "user"]
    assert build_prompt(skill, task, 0).task_id == task.id


def test_prompt_leaves_out_the_seed_that_gives_the_answer_away(tmp_path: Path) -> None:
    skill = load(tmp_path, rows=[row("Seed question 2?", "MAYBE")])
    (task,) = load_tasks(skill)
    contents = [m.content for m in build_prompt(skill, task, 6).messages]
    assert contents.count("Seed question 2?") == 1 and len(contents) == 12


def test_classes(tmp_path: Path) -> None:
    tasks = load_tasks(load(tmp_path))
    classes = class_of(tasks)
    assert classes is not None and set(classes.values()) == set(LABELS)
    many = load_tasks(load(tmp_path, rows=[row(f"q{i}", f"answer {i}") for i in range(21)]))
    assert class_of(many) is None and class_of(many[:20]) is not None and class_of([]) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(JSON)
def test_canonical_json_round_trips(value: Any) -> None:
    assert parse_json(canonical_json(value)) == value


@settings(deadline=None)
@given(st.text())
def test_strict_json_accepts_only_what_json_does(text: str) -> None:
    try:
        value = parse_json(text)
    except ValueError:
        return
    assert json.loads(text) == value
