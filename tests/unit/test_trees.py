"""What of a changed skill is learnt: the branch's training tasks, never the base's test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.errors import SkillError
from rft_ilab.pipeline.trees import Trees, head_tree, trees
from rft_ilab.skills.proposal import read_proposal
from tests.unit.repositories import commit_all, git
from tests.unit.taxonomies import LABEL_GRADER, row, write_skill

BASE = [
    row("Learn one?", "YES", id="1", group="g1", split="train"),
    row("Tune one?", "NO", id="2", group="g2", split="val"),
    row("Test one?", "YES", id="3", group="g3", split="test"),
    row("Test two?", "NO", id="4", group="g4", split="test"),
]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write_skill(root / "taxonomy", rows=BASE)
    commit_all(root)
    git(root, "checkout", "-q", "-b", "change")
    return root


def learnt(root: Path, rows: list[dict[str, Any]], **files: str) -> tuple[Trees, list[dict[str, Any]]]:
    """The training tree of a branch with these rows: what it is, and its rows."""
    leaf = write_skill(root / "taxonomy", rows=rows)
    for name, text in files.items():
        (leaf / f"{name}.py").write_text(text)
    commit_all(root)
    proposal = read_proposal(root / "taxonomy", "main")
    with head_tree(proposal) as head, trees(proposal, head, root / "taxonomy") as found:
        written = (found.training / "compositional_skills" / "area" / "skill" / "tasks.jsonl").read_text()
        assert (
            found.judges.taxonomy / "compositional_skills" / "area" / "skill" / "tasks.jsonl"
        ).read_text() == "".join(json.dumps(one) + "\n" for one in BASE)
        return found, [json.loads(line) for line in written.splitlines()]


NEW = row("Learn two?", "NO", id="9", group="g9", split="train")


def test_new_training_tasks_are_learnt(repository: Path) -> None:
    found, rows = learnt(repository, [*BASE, NEW])
    assert found.targets == ("area/skill",) and not found.ignored
    assert [one["id"] for one in rows] == ["3", "4", "1", "2", "9"]


@pytest.mark.parametrize(
    "leak",
    [
        row("Something else?", "NO", id="8", group="g3", split="train"),
        row("Something else?", "NO", id="4", group="g9", split="train"),
        row("  test ONE? ", "NO", id="8", group="g8", split="val"),
        {
            "messages": [
                {"role": "user", "content": "Test one?"},
                {"role": "assistant", "content": "YES"},
                {"role": "user", "content": "Again?"},
            ],
            "reference": "YES",
            "id": "8",
            "split": "train",
        },
        {
            "messages": [{"role": "system", "content": "Test one?"}, {"role": "user", "content": "Well?"}],
            "reference": "YES",
            "id": "8",
            "split": "train",
        },
    ],
    ids=["its group", "its id", "its question", "in an earlier turn", "in the instruction"],
)
def test_a_test_task_of_the_base_is_not_learnt(repository: Path, leak: dict[str, Any]) -> None:
    without = [one for one in BASE if one["id"] not in ("3", "4")]
    found, rows = learnt(repository, [*without, NEW, leak])
    assert [one["id"] for one in rows] == ["3", "4", "1", "2", "9"] and leak not in rows
    said = {note.line: note.message for note in found.ignored}
    assert said[4].startswith("1 training tasks are test tasks of the base")
    assert said[None].startswith("test tasks: 0 added or changed, 2 gone")


def test_other_test_tasks_are_not_asked(repository: Path) -> None:
    changed = [*BASE[:3], {**BASE[3], "reference": "YES"}]
    found, rows = learnt(repository, changed)
    assert rows == [BASE[2], BASE[3], BASE[0], BASE[1]]
    assert not found.targets
    (note,) = found.ignored
    assert note.line == 4 and note.message.startswith("test tasks: 1 added or changed, 1 gone")


def test_another_spelling_is_no_change(repository: Path) -> None:
    found, _ = learnt(repository, [dict(reversed(one.items())) for one in BASE])
    assert not found.targets and not found.ignored


def test_a_generator_trains(repository: Path) -> None:
    found, _ = learnt(repository, BASE, generator="def tasks(seed):\n    yield {}\n")
    assert found.targets == ("area/skill",)


def test_the_base_may_be_ahead(repository: Path) -> None:
    git(repository, "checkout", "-q", "main")
    write_skill(repository / "taxonomy", "area/other")
    git(repository, "rm", "-q", "--cached", "-r", "--ignore-unmatch", "nothing")
    commit_all(repository)
    git(repository, "checkout", "-q", "change")
    found, _ = learnt(repository, [*BASE, NEW])
    assert found.targets == ("area/skill",) and not found.judges.new and not found.ignored


def test_a_deleted_skill_is_asked_for_all_the_same(repository: Path) -> None:
    write_skill(repository / "taxonomy", "area/other")
    commit_all(repository)
    git(repository, "rm", "-rq", "taxonomy/compositional_skills/area/skill")
    git(repository, "commit", "-qm", "gone")
    proposal = read_proposal(repository / "taxonomy", "main")
    assert proposal.skills == {"area/skill": "deleted", "area/other": "new"}
    with head_tree(proposal) as head, trees(proposal, head, repository / "taxonomy") as found:
        assert found.targets == ("area/other",)
        assert (found.training / "compositional_skills" / "area" / "skill" / "grader.json").exists()
        assert [note.message for note in found.ignored] == ["deleted here; the base still asks for it"]


def test_histories_without_a_common_commit(repository: Path) -> None:
    git(repository, "checkout", "-q", "--orphan", "alone")
    (repository / "README.md").write_text("other\n")
    commit_all(repository)
    with pytest.raises(SkillError, match="have no commit in common"):
        read_proposal(repository / "taxonomy", "main")


def test_a_grader_and_a_table_of_a_new_skill_are_no_edits(repository: Path) -> None:
    (repository / "graders").mkdir()
    (repository / "graders" / "mine.json").write_text(json.dumps(LABEL_GRADER))
    write_skill(repository / "taxonomy", "area/new", grader={"type": "ref", "name": "mine"})
    (repository / "taxonomy" / "rft.toml").write_text('[skills."area/new"]\nmax_tokens = 4\n')
    found, _ = learnt(repository, BASE)
    assert found.judges.new == ("area/new",) and found.targets == ("area/new",) and not found.ignored
