"""Writing a leaf: what is written is read back, InstructLab's own checks accept it, and nothing is half there."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from yamllint import linter
from yamllint.config import YamlLintConfig

from rft_ilab.config import Settings
from rft_ilab.errors import SkillError
from rft_ilab.skills import leaf as leaf_module
from rft_ilab.skills.leaf import put_files, qna_text, write_leaf
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill, read_qna
from rft_ilab.types import Seed
from tests.unit.taxonomies import LABEL_GRADER, row

YAMLLINT = YamlLintConfig("{extends: relaxed, rules: {line-length: disable}}")  # InstructLab's
SEEDS = [Seed(question=f"Seed question {i}?", answer="YES") for i in range(5)]


def write(taxonomy: Path, name: str = "area/skill", **changes: Any) -> Path:
    taxonomy.mkdir(exist_ok=True)
    arguments: dict[str, Any] = {
        "description": "Answer.", "seeds": SEEDS, "grader": LABEL_GRADER, "created_by": "tests",
        "tasks": [row("Is it?", "YES", split="train")], "attribution": "Title of work: tests",
    }  # fmt: skip
    return write_leaf(taxonomy, name, **(arguments | changes))


def everything(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_leaf_is_read_back(tmp_path: Path) -> None:
    leaf = write(tmp_path / "taxonomy")
    assert leaf == tmp_path / "taxonomy/compositional_skills/area/skill"
    assert sorted(p.name for p in leaf.iterdir()) == ["attribution.txt", "grader.json", "qna.yaml", "tasks.jsonl"]
    skill = load_skill(tmp_path / "taxonomy", "area/skill", Settings())
    assert (skill.description, list(skill.seeds), skill.grader) == ("Answer.", SEEDS, LABEL_GRADER)
    (task,) = load_tasks(skill)
    assert (task.messages[-1].content, task.reference, task.split) == ("Is it?", "YES", "train")
    assert stat.S_IMODE(leaf.stat().st_mode) == 0o777 & ~(os.umask(0o022) or 0o022)


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=80).filter(str.strip)
PIECES = ["word", "word ", " ", "\n", "\n\n", "\t", ": ", "#", "- ", "'", '"', "é", "x" * 150]
LONG = st.lists(st.sampled_from(PIECES), min_size=1)
ANY = st.one_of(TEXTS, LONG.map("".join).filter(str.strip))


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(description=ANY, seeds=st.lists(st.tuples(ANY, ANY, st.none() | ANY), min_size=1, max_size=4))
@example(description="a\x85b", seeds=[("0", "0\x85", "a\u2028b"), ("a\nb\x85", "a\rb", None)])
def test_any_text_survives_yaml_and_pleases_yamllint(tmp_path: Path, description: str, seeds: list[Any]) -> None:
    examples = [Seed(question=q, answer=a, context=c) for q, a, c in seeds]
    text = qna_text(description, examples, "tests")
    assert list(linter.run(text, YAMLLINT)) == []
    (tmp_path / "qna.yaml").write_text(text, encoding="utf-8", newline="")
    assert read_qna(tmp_path / "qna.yaml") == (description.strip(), tuple(examples))


def test_a_text_that_looks_like_something_else_stays_a_text() -> None:
    seeds = [Seed(question=text, answer=text) for text in ("4", "yes", "2024-01-05", "null", "~", "1e3", "0x1f")]
    read = yaml.safe_load(qna_text("no", seeds, "1"))
    assert [example["answer"] for example in read["seed_examples"]] == [seed.answer for seed in seeds]
    assert (read["task_description"], read["created_by"], read["version"]) == ("no", "1", 3)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../b", "a//b", "", ".", "A/b", "a/b/", "a\x00b", "a b", "x" * 201]
)
def test_a_bad_name_writes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(SkillError, match="bad skill name"):
        write(tmp_path / "taxonomy", name)
    assert everything(tmp_path) == {}


def test_what_is_there_stays_without_force(tmp_path: Path) -> None:
    leaf = write(tmp_path)
    (leaf / "generator.py").write_text("def tasks(seed): ...\n")
    before = everything(tmp_path)
    with pytest.raises(SkillError, match=r"qna.yaml: is there already \(choose another name, or add --force"):
        write(tmp_path, description="Other.")
    assert everything(tmp_path) == before
    write(tmp_path, description="Other.", force=True)
    after = everything(tmp_path)
    assert {k for k in before if before[k] != after[k]} == {"compositional_skills/area/skill/qna.yaml"}
    assert set(after) == set(before)


def test_a_name_through_a_symlink_or_another_skill_is_refused(tmp_path: Path) -> None:
    taxonomy, outside = tmp_path / "taxonomy", tmp_path / "outside"
    write(taxonomy)
    outside.mkdir()
    (taxonomy / "compositional_skills/link").symlink_to(outside)
    with pytest.raises(SkillError, match="symbolic link"):
        write(taxonomy, "link/skill")
    with pytest.raises(SkillError, match="inside another skill"):
        write(taxonomy, "area/skill/part")
    with pytest.raises(SkillError, match="holds other skills"):
        write(taxonomy, "area")
    leaf = write(taxonomy, "area/other")
    (leaf / "tasks.jsonl").unlink()
    (leaf / "tasks.jsonl").symlink_to(outside / "tasks.jsonl")
    with pytest.raises(SkillError, match="symbolic link"):
        write(taxonomy, "area/other", force=True)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("existing", [False, True])
def test_an_error_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool) -> None:
    tmp_path.joinpath("compositional_skills").mkdir()
    if existing:
        write(tmp_path)
    before = everything(tmp_path)

    def failing(fresh: Path, target: Path) -> None:
        raise PermissionError(13, "no", str(target))

    monkeypatch.setattr(leaf_module, "put_in_place", failing)
    with pytest.raises(PermissionError):
        write(tmp_path, description="Other.", force=True)
    assert everything(tmp_path) == before
    assert (tmp_path / "compositional_skills/area").exists() == existing


def test_files_are_added_to_a_leaf(tmp_path: Path) -> None:
    leaf = tmp_path / "compositional_skills/area/skill"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text("version: 3\n")
    put_files(tmp_path, "area/skill", {"grader.json": json.dumps(LABEL_GRADER)})
    assert sorted(p.name for p in leaf.iterdir()) == ["grader.json", "qna.yaml"]
    assert (leaf / "qna.yaml").read_text() == "version: 3\n"
