"""What a branch changed and lint then checks: leaves, shared graders, tables of rft.toml; deleted, renamed, new."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rft_ilab.cli.lint import lint
from rft_ilab.errors import SkillError
from rft_ilab.pipeline.precheck import inspected
from rft_ilab.pipeline.trees import head_tree
from rft_ilab.skills.changes import Changes, find_changes
from rft_ilab.skills.proposal import read_proposal
from rft_ilab.skills.tree import leaf_names
from tests.unit.repositories import SETTINGS, commit_all, git
from tests.unit.taxonomies import write_skill

NAMES = ("area/alone", "area/shared", "other/alone")
GRADER = "def grade(sample, item):\n    return float(sample['output_text'] == item['reference'])\n"
CASES = '{"sample": "a", "item": {"reference": "a"}, "score": 1.0}\n'
TOML = '[gate]\nmargin = 0.1\n\n[skills."area/alone"]\nmax_tokens = 4\n'


@pytest.fixture
def taxonomy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three skills, one of them with a shared grader, committed on main; a branch is checked out."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "repository" / "taxonomy"
    for name in NAMES:
        write_skill(root, name, **({"grader": {"type": "ref", "name": "same"}} if name == "area/shared" else {}))
    graders = root.parent / "graders"
    graders.mkdir()
    (graders / "same.py").write_text(GRADER)
    (graders / "same.cases.jsonl").write_text(CASES)
    (root / "rft.toml").write_text(TOML)
    commit_all(root.parent)
    git(root.parent, "switch", "-q", "-c", "branch")
    return root


def changes(taxonomy: Path, ref: str = "main") -> Changes:
    return find_changes(taxonomy, ref, leaf_names(taxonomy))


def leaf(taxonomy: Path, name: str) -> Path:
    return taxonomy / "compositional_skills" / name


def run(taxonomy: Path, *arguments: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(lint, ["--taxonomy-path", str(taxonomy), *arguments])


def spoil(taxonomy: Path, name: str) -> None:
    """A row without a reference as the new last line."""
    with (leaf(taxonomy, name) / "tasks.jsonl").open("a") as file:
        file.write('{"messages": [{"role": "user", "content": "New?"}]}\n')


def test_nothing_changed(taxonomy: Path) -> None:
    assert changes(taxonomy) == Changes()
    done = run(taxonomy, "--changed", "main")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "0 of 3 skills changed since main\n0 errors, 0 warnings\n"


@pytest.mark.parametrize("stage", ["committed", "staged", "in the working tree"])
def test_a_changed_leaf_and_no_other_is_checked(taxonomy: Path, stage: str) -> None:
    spoil(taxonomy, "other/alone")
    commit_all(taxonomy.parent, "what main has is wrong, too")
    git(taxonomy, "branch", "-f", "main")
    spoil(taxonomy, "area/alone")
    if stage != "in the working tree":
        git(taxonomy, "add", "-A")
    if stage == "committed":
        commit_all(taxonomy.parent)
    assert changes(taxonomy) == Changes(skills=("area/alone",))
    done = run(taxonomy, "--changed", "main")
    assert done.exit_code == 2 and done.stderr.startswith("1 of 3 skills changed since main\n")
    (line,) = done.stdout.splitlines()
    place = f"{leaf(taxonomy, 'area/alone') / 'tasks.jsonl'}:301"
    fix = 'add a completion that the grader must accept as "reference"'
    assert line == f"{place}: error: no reference ({fix})"


def test_what_main_did_meanwhile_is_not_our_change(taxonomy: Path) -> None:
    git(taxonomy, "switch", "-q", "main")
    spoil(taxonomy, "area/alone")
    commit_all(taxonomy.parent)
    git(taxonomy, "switch", "-q", "branch")
    spoil(taxonomy, "other/alone")
    commit_all(taxonomy.parent)
    assert changes(taxonomy).skills == ("other/alone",)


def test_a_new_leaf_that_git_does_not_know_yet(taxonomy: Path) -> None:
    write_skill(taxonomy, "area/new")
    (taxonomy.parent / ".gitignore").write_text("ignored\n")
    write_skill(taxonomy, "area/ignored")
    assert changes(taxonomy).skills == ("area/new",)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("taxonomy/rft.toml", TOML.replace("4", "5")),
        ("taxonomy/rft.toml", TOML.replace("0.1", "0.2")),
        ("graders/same.cases.jsonl", CASES + "\n"),
        ("taxonomy/compositional_skills/area/alone/attribution.txt", "Title of work: other\n"),
        ("taxonomy/compositional_skills/area/note.txt", "of no skill\n"),
        ("README.md", "of no skill\n"),
    ],
)
def test_a_pull_request_looks_at_what_lint_looks_at(taxonomy: Path, file: str, text: str) -> None:
    (taxonomy.parent / file).write_text(text)
    commit_all(taxonomy.parent)
    proposal = read_proposal(taxonomy, "main")
    with head_tree(proposal) as head:
        assert inspected(proposal, head) == changes(taxonomy)


def test_deleted_and_renamed_leaves(taxonomy: Path) -> None:
    shutil.rmtree(leaf(taxonomy, "area/alone"))
    leaf(taxonomy, "other/alone").rename(leaf(taxonomy, "other/moved"))
    assert changes(taxonomy) == Changes(skills=("other/moved",), gone=("area/alone", "other/alone"))
    done = run(taxonomy, "--changed", "main")
    assert done.exit_code == 2, "rft.toml still has a table of the deleted one"
    assert 'rft.toml: error: [skills."area/alone"] names no skill' in done.stdout
    (taxonomy / "rft.toml").write_text("[gate]\nmargin = 0.1\n")
    done = run(taxonomy, "--changed", "main")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines()[0] == "1 of 2 skills changed since main; gone: 'area/alone', 'other/alone'"


def test_all_leaves_deleted(taxonomy: Path) -> None:
    shutil.rmtree(taxonomy / "compositional_skills")
    (taxonomy / "compositional_skills").mkdir()
    done = run(taxonomy, "--changed", "main")
    assert done.exit_code == 2 and "no skill with a grader.json and tasks.jsonl" in done.stdout
    assert "gone: 'area/alone'" in done.stderr


def test_a_half_deleted_leaf_is_checked(taxonomy: Path) -> None:
    (leaf(taxonomy, "area/alone") / "grader.json").unlink()
    assert changes(taxonomy).skills == ("area/alone",)
    assert "grader.json: error: missing file" in run(taxonomy, "--changed", "main").stdout


@pytest.mark.parametrize("file", ["same.py", "same.cases.jsonl", "same.waivers.json"])
def test_a_shared_grader_brings_its_skills(taxonomy: Path, file: str) -> None:
    with (taxonomy.parent / "graders" / file).open("a") as opened:
        opened.write("\n")
    assert changes(taxonomy) == Changes(skills=("area/shared",), graders=frozenset({"same"}))


def test_a_golden_case_that_no_longer_holds(taxonomy: Path) -> None:
    (taxonomy.parent / "graders" / "same.cases.jsonl").write_text(CASES + CASES.replace("1.0", "0.0"))
    done = run(taxonomy, "--changed", "main")
    assert done.exit_code == 2 and "same.cases.jsonl:2: error: golden case gives 1, not 0" in done.stdout


def test_a_deleted_shared_grader_is_missed_by_its_skill(taxonomy: Path) -> None:
    (taxonomy.parent / "graders" / "same.py").unlink()
    done = run(taxonomy, "--changed", "main")
    assert done.exit_code == 2 and "grader.json:1: error: no grader named 'same'" in done.stdout


@pytest.mark.parametrize(
    ("text", "skills"),
    [
        (TOML.replace("0.1", "0.2"), ()),
        (TOML.replace("max_tokens = 4", "max_tokens = 5"), ("area/alone",)),
        (TOML + '\n[skills."other/alone"]\ntier = "target"\n', ("other/alone",)),
        ("", ("area/alone",)),
        ("[", ("area/alone",)),
    ],
)
def test_a_changed_table_of_the_settings_brings_its_skill(taxonomy: Path, text: str, skills: tuple[str, ...]) -> None:
    (taxonomy / "rft.toml").write_text(text)
    assert changes(taxonomy).skills == skills


def test_a_taxonomy_that_is_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_skill(tmp_path, grader={"type": "ref", "name": "same"})
    (tmp_path / "graders").mkdir()
    (tmp_path / "graders" / "same.py").write_text(GRADER)
    commit_all(tmp_path)
    assert changes(tmp_path) == Changes()
    (tmp_path / "graders" / "same.py").write_text(GRADER + "#\n")
    assert changes(tmp_path) == Changes(skills=("area/skill",), graders=frozenset({"same"}))


@pytest.mark.parametrize("ref", ["origin/main", "--upload-pack=x", "main..branch", "", "main:taxonomy"])
def test_a_reference_that_is_none_is_one_line(taxonomy: Path, ref: str) -> None:
    with pytest.raises(SkillError):
        changes(taxonomy, ref)
    done = run(taxonomy, f"--changed={ref}")
    assert done.exit_code == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: ") and ("git reference" in done.stderr or "no commit" in done.stderr)


def test_outside_git_is_one_line(tmp_path: Path) -> None:
    write_skill(tmp_path)
    done = run(tmp_path, "--changed", "main")
    assert done.exit_code == 2 and "in no git repository" in done.stderr and len(done.stderr.splitlines()) == 1


def test_skills_and_changed_exclude_each_other(taxonomy: Path) -> None:
    done = run(taxonomy, "--changed", "main", "--skill", "area/alone")
    assert done.exit_code == 2 and "exclude each other" in done.stderr


def test_fix_repairs_only_what_changed(taxonomy: Path) -> None:
    for name in NAMES:
        path = leaf(taxonomy, name) / "attribution.txt"
        path.write_text(path.read_text().rstrip())
    commit_all(taxonomy.parent)
    git(taxonomy, "branch", "-f", "main")
    path = leaf(taxonomy, "other/alone") / "qna.yaml"
    path.write_text(path.read_text() + "\n\n\n\n")
    assert run(taxonomy, "--changed", "main", "--fix").exit_code == 0
    place = Path("taxonomy") / leaf(Path(), "other/alone") / "attribution.txt"
    assert git(taxonomy, "status", "--porcelain").split() == ["M", str(place)]
