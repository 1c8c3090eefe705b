"""What judges, read from a git revision: the right files, only those, and nothing that a change could slip in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rft_ilab.config import load_settings
from rft_ilab.errors import SkillError
from rft_ilab.pipeline.judging import base_tree
from rft_ilab.skills import revision
from rft_ilab.skills.revision import find_revision, write_revision
from rft_ilab.skills.tree import find_skills
from tests.unit.repositories import commit_all, git
from tests.unit.taxonomies import LABEL_GRADER, write_skill

SHARED = {"type": "ref", "name": "shared"}
STRICT = "def grade(sample, item):\n    return float(sample['output_text'] == item['reference'])\n"
LENIENT = "def grade(sample, item):\n    return 1.0\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project with a taxonomy of two skills and shared graders, one commit, on a branch `change`."""
    root = tmp_path / "project"
    write_skill(root / "taxonomy", "area/one")
    write_skill(root / "taxonomy", "area/two", grader=SHARED)
    (root / "graders").mkdir()
    (root / "graders" / "shared.py").write_text(STRICT)
    (root / "taxonomy" / "rft.toml").write_text('[skills."area/one"]\ntier = "target"\nmargin = 0.02\n')
    (root / "taxonomy" / "knowledge").mkdir()
    (root / "taxonomy" / "knowledge" / "large.md").write_text("no judge")
    (root / "README.md").write_text("no judge")
    commit_all(root)
    git(root, "checkout", "-q", "-b", "change")
    return root


def written(root: Path, target: Path, ref: str = "main", taxonomy: str = "taxonomy") -> dict[str, str]:
    write_revision(find_revision(root / taxonomy, ref), target)
    return {p.relative_to(target).as_posix(): p.read_text() for p in sorted(target.rglob("*")) if p.is_file()}


def test_only_what_judges_is_read_and_as_the_revision_has_it(repository: Path, tmp_path: Path) -> None:
    (repository / "graders" / "shared.py").write_text(LENIENT)
    (repository / "taxonomy" / "rft.toml").unlink()
    commit_all(repository)
    found = written(repository, tmp_path / "out")
    leaf = {"qna.yaml", "grader.json", "tasks.jsonl", "attribution.txt"}
    expected = {f"taxonomy/compositional_skills/area/{name}/{file}" for name in ("one", "two") for file in leaf}
    assert set(found) == {*expected, "graders/shared.py", "taxonomy/rft.toml"}
    assert found["graders/shared.py"] == STRICT
    assert written(repository, tmp_path / "again", "HEAD~1")["graders/shared.py"] == STRICT
    assert written(repository, tmp_path / "now", "change")["graders/shared.py"] == LENIENT


def test_a_taxonomy_may_be_the_whole_repository(tmp_path: Path) -> None:
    root = tmp_path / "taxonomy"
    write_skill(root, "area/two", grader=SHARED)
    (root / "graders").mkdir()
    (root / "graders" / "shared.py").write_text(STRICT)
    commit_all(root)
    (tmp_path / "link").symlink_to(root)
    for taxonomy in (root, tmp_path / "link"):
        with base_tree(taxonomy, "main") as base:
            (skill,) = find_skills(base.taxonomy, base.settings())
            assert skill.grader["source"] == STRICT


@pytest.mark.parametrize("ref", ["", "--help", "-x", "main:taxonomy", ":/state", "main..change", "a b", "x\n", "^main"])
def test_what_is_no_reference_is_refused(repository: Path, ref: str) -> None:
    with pytest.raises(SkillError, match="bad git reference"):
        find_revision(repository / "taxonomy", ref)


def test_a_missing_commit_and_a_missing_repository_are_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(SkillError, match=r"no commit 'origin/main' in this repository \(fetch it, e.g. git fetch"):
        find_revision(repository / "taxonomy", "origin/main")
    tree = git(repository, "rev-parse", "main^{tree}")
    with pytest.raises(SkillError, match="no commit"):
        find_revision(repository / "taxonomy", tree)
    (tmp_path / "plain").mkdir()
    with pytest.raises(SkillError, match="in no git repository"):
        find_revision(tmp_path / "plain", "main")
    commit_all(tmp_path / "plain")
    with pytest.raises(SkillError, match="main has no skill in compositional_skills"):
        written(tmp_path, tmp_path / "out", taxonomy="plain")


def test_a_tag_that_is_called_like_a_branch_is_no_judge(repository: Path) -> None:
    git(repository, "update-ref", "refs/remotes/origin/main", "main")
    honest = find_revision(repository / "taxonomy", "origin/main").commit
    (repository / "graders" / "shared.py").write_text(LENIENT)
    commit_all(repository)
    git(repository, "tag", "origin/main")
    with pytest.raises(SkillError, match="'origin/main' has two meanings"):
        find_revision(repository / "taxonomy", "origin/main")
    assert find_revision(repository / "taxonomy", "refs/remotes/origin/main").commit == honest


def test_neither_replacements_nor_attributes_nor_the_environment_change_what_is_read(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / ".gitattributes").write_text("graders/* export-ignore\n*.py filter=lenient\n")
    git(repository, "config", "filter.lenient.smudge", "echo lenient")
    (repository / "lenient.py").write_text(LENIENT)
    commit_all(repository)
    strict = git(repository, "rev-parse", "main:graders/shared.py")
    git(repository, "replace", strict, git(repository, "rev-parse", "change:lenient.py"))
    other = tmp_path / "other"
    write_skill(other / "taxonomy", "area/one")
    commit_all(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert written(repository, tmp_path / "out")["graders/shared.py"] == STRICT


@pytest.mark.parametrize("place", ["graders/extra.py", "taxonomy/baselines/main.json", "taxonomy/rft.toml"])
def test_links_are_refused_where_they_could_judge(repository: Path, tmp_path: Path, place: str) -> None:
    (repository / place).parent.mkdir(exist_ok=True)
    (repository / place).unlink(missing_ok=True)
    (repository / place).symlink_to("/etc/passwd")
    commit_all(repository)
    with pytest.raises(SkillError, match=rf"^change:{place}: is a symbolic link"):
        written(repository, tmp_path / "out", "change")


def test_links_are_refused_in_skills_and_left_out_elsewhere(repository: Path, tmp_path: Path) -> None:
    plain = repository / "taxonomy" / "compositional_skills" / "plain"
    plain.mkdir()
    (plain / "qna.yaml").symlink_to("../area/one/qna.yaml")
    commit_all(repository)
    assert not any("plain" in name for name in written(repository, tmp_path / "out", "change"))
    (repository / "taxonomy" / "compositional_skills" / "area" / "one" / "generator.py").symlink_to("/etc/passwd")
    commit_all(repository)
    with pytest.raises(SkillError, match=r"one/generator.py: is a symbolic link"):
        written(repository, tmp_path / "again", "change")


def with_tree_entry(repository: Path, mode: str, name: str) -> str:
    """A commit whose top tree has one more entry, whatever its name."""
    blob = git(repository, "hash-object", "-w", "--stdin", stdin=b"x")
    top = git(repository, "rev-parse", "main^{tree}") if mode == "160000" else blob
    taxonomy = git(repository, "rev-parse", "main:taxonomy")
    graders = b"%s %s\0" % (mode.encode(), name.encode()) + bytes.fromhex(top)
    evil = git(repository, "hash-object", "-t", "tree", "--literally", "-w", "--stdin", stdin=graders)
    listing = f"040000 tree {evil}\tgraders\n040000 tree {taxonomy}\ttaxonomy\n"
    tree = git(repository, "mktree", stdin=listing.encode())
    return git(repository, "commit-tree", tree, "-m", "evil")


@pytest.mark.parametrize(
    "mode, name, complaint",
    [
        ("100644", "..", "a name in the tree that no file may have: 'graders/..'"),
        ("100644", ".git", "a name in the tree that no file may have"),
        ("100644", "a\x1b[2J.py", "a name in the tree that no file may have: 'graders/a.x1b"),
        ("160000", "module", "graders/module: is a submodule"),
    ],
)
def test_names_that_lead_out_and_submodules_are_refused(
    repository: Path, tmp_path: Path, mode: str, name: str, complaint: str
) -> None:
    commit = with_tree_entry(repository, mode, name)
    with pytest.raises(SkillError, match=complaint):
        written(repository, tmp_path / "deep" / "out", commit)
    assert not (tmp_path / "deep" / "out").exists()


def test_pointers_and_floods_are_refused(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = repository / "taxonomy" / "compositional_skills" / "area" / "one" / "tasks.jsonl"
    tasks.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    commit_all(repository)
    with pytest.raises(SkillError, match=r"one/tasks.jsonl: is a Git LFS pointer"):
        written(repository, tmp_path / "out", "change")
    monkeypatch.setattr(revision, "MAX_FILES", 5)
    with pytest.raises(SkillError, match="10 files of 0 MiB are more than 5"):
        written(repository, tmp_path / "again")
    monkeypatch.setattr(revision, "MAX_FILES", 50)
    monkeypatch.setattr(revision, "MAX_BYTES", 100)
    with pytest.raises(SkillError, match="10 files of"):
        written(repository, tmp_path / "again")


def test_a_missing_object_is_one_line(repository: Path, tmp_path: Path) -> None:
    blob = git(repository, "rev-parse", "main:graders/shared.py")
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SkillError, match=r"git (has no content of|cannot read)"):
        written(repository, tmp_path / "out")


# ---- the revision's files with the new skills of the working tree ----


def test_a_new_skill_is_judged_by_its_own_files_and_nothing_else_is(repository: Path) -> None:
    taxonomy = repository / "taxonomy"
    write_skill(taxonomy, "area/three", grader={"type": "ref", "name": "fresh"})
    write_skill(taxonomy, "area/three/deeper", grader=SHARED)
    write_skill(taxonomy, "area/one", grader={**LABEL_GRADER, "labels": ["YES"]})
    (repository / "graders" / "fresh.json").write_text(json.dumps(LABEL_GRADER))
    (repository / "graders" / "shared.py").write_text(LENIENT)
    (repository / "graders" / "shared.json").write_text(json.dumps(LABEL_GRADER))
    toml = '[gate]\nmargin = 0.9\n[skills."area/one"]\nmargin = 0.9\n[skills."area/three"]\nmax_tokens = 7\n'
    (taxonomy / "rft.toml").write_text(toml)
    with base_tree(taxonomy, "main") as base:
        assert base.new == ("area/three", "area/three/deeper")
        settings = base.settings()
        skills = {skill.name: skill for skill in find_skills(base.taxonomy, settings)}
    assert settings.gate.margin == 0.1 and settings.skill("area/one").margin == 0.02
    assert settings.skill("area/three").max_tokens == 7
    assert list(skills) == ["area/one", "area/three", "area/three/deeper", "area/two"]
    assert skills["area/one"].grader["labels"] == ["YES", "NO", "MAYBE"]
    assert skills["area/two"].grader["source"] == skills["area/three/deeper"].grader["source"] == STRICT
    assert skills["area/three"].grader == LABEL_GRADER
    assert not base.taxonomy.exists()


def test_a_folder_of_graders_cannot_be_slipped_in_before_the_real_one(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_skill(root / "taxonomy", "area/one", grader=SHARED)
    (root / "taxonomy" / "graders").mkdir()
    (root / "taxonomy" / "graders" / "shared.py").write_text(STRICT)
    commit_all(root)
    (root / "graders").mkdir()
    (root / "graders" / "shared.py").write_text(LENIENT)
    write_skill(root / "taxonomy", "area/two", grader=SHARED)
    with base_tree(root / "taxonomy", "main") as base:
        for skill in find_skills(base.taxonomy, base.settings()):
            assert skill.grader["source"] == STRICT


def test_a_deleted_skill_is_judged_all_the_same(repository: Path) -> None:
    taxonomy = repository / "taxonomy"
    for path in sorted((taxonomy / "compositional_skills").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with base_tree(taxonomy, "main") as base:
        assert [s.name for s in find_skills(base.taxonomy, base.settings())] == ["area/one", "area/two"]
        assert base.new == () and load_settings(taxonomy).skills.keys() == {"area/one"}


def test_errors_name_files_that_are_there_to_be_looked_at(repository: Path, tmp_path: Path) -> None:
    taxonomy = repository / "taxonomy"
    write_skill(taxonomy, "area/three", grader="{")
    with pytest.raises(SkillError) as own, base_tree(taxonomy, "main") as base:
        find_skills(base.taxonomy, base.settings())
    assert own.value.where == taxonomy / "compositional_skills" / "area" / "three" / "grader.json"
    write_skill(taxonomy, "area/one", rows=["[]"])
    commit_all(repository)
    write_skill(taxonomy, "area/three")
    with pytest.raises(SkillError) as theirs, base_tree(taxonomy, "change") as base:
        find_skills(base.taxonomy, base.settings())
    assert str(theirs.value).startswith("change:taxonomy/compositional_skills/area/three/grader.json:1: ")
    (taxonomy / "compositional_skills" / "area" / "four").mkdir()
    for name in ("qna.yaml", "grader.json", "tasks.jsonl"):
        (taxonomy / "compositional_skills" / "area" / "four" / name).symlink_to(f"../one/{name}")
    with pytest.raises(SkillError, match="is a symbolic link"), base_tree(taxonomy, "main") as base:
        find_skills(base.taxonomy, base.settings())
