"""Pull requests in a scratch repository: a good one passes, bad ones fail where they are bad, edits of the yardstick
change nothing."""

from __future__ import annotations

import json
import re

from rft_ilab.grading.proof.waivers import NAMES
from tests.e2e.pull_requests import LENIENT, RFT_TOML, Project, described, project, questions
from tests.unit.repositories import git
from tests.unit.taxonomies import LABELS, write_skill

__all__ = ["project"]

SECTIONS = ["What it changes", "Lint", "Self-test", "Signal", "Power", "Gate", "Cost", "Again"]
EXPLOITABLE = "def grade(sample, item):\n    return float(item['reference'] in sample['output_text'])\n"


def first_line(text: str) -> str:
    return text.splitlines()[0]


def headings(text: str) -> list[str]:
    return re.findall(r"^### (.+)$", text, re.M)


def test_a_good_skill_ends_with_pass_and_a_whole_report(project: Project, tmp_path):
    project.add_good_skill()
    head = project.commit()
    result = project.command("--steps", "3", "--markdown", str(tmp_path / "report.md"))
    report = (tmp_path / "report.md").read_text()
    assert result.exit_code == 0, result.stderr + report
    assert first_line(report) == "## PASS: better where it should be, and no worse elsewhere"
    assert result.stdout.strip() == first_line(report).removeprefix("## ")
    assert headings(report) == SECTIONS
    assert "area/new: new" in report and "area/new is new: its own test tasks and grader judge it" in report
    (request,) = project.trained
    assert request.targets == ("area/new",) and request.settings.train.steps == 3
    verdict = project.verdict()
    assert verdict["base"]["ref"] == "main"
    assert [row["judged_by"] for row in verdict["targets"]] == ["branch"]
    assert {row["skill"]: row["judged_by"] for row in verdict["watched"]} == {
        "area/old": "base",
        "area/watched": "base",
    }
    base = git(project.root, "rev-parse", "main")
    assert f"ilab rft pr --base {base} --head {head} --steps 3" in report.replace("&#47;", "/")
    assert (request.run / "report.html").exists()


def test_precheck_trains_nothing(project: Project):
    project.add_good_skill()
    project.commit()
    result = project.command("--precheck")
    assert result.exit_code == 0, result.stderr
    assert first_line(result.stdout) == "## PASS: precheck: ready to be trained and judged"
    assert headings(result.stdout) == [name for name in SECTIONS if name != "Gate"]
    assert not project.trained
    assert re.search(r"\| area/new \| bare \| 32 \| \d+\.\d% \|", result.stdout)
    assert "3 sample rows" in result.stdout


def test_a_wrong_gold_fails_lint_with_its_line(project: Project):
    rows = questions("Item")
    rows[16]["reference"] = "PERHAPS"
    write_skill(project.taxonomy, "area/new", rows=rows, qna=described("The new skill"))
    project.commit()
    result = project.command("--annotate")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("::stop-commands::") and lines[1].startswith("## FAIL: ")
    silenced = lines.index(f"::{lines[0].removeprefix('::stop-commands::')}::")
    errors = [line for line in lines[silenced:] if line.startswith("::error ")]
    assert errors and all(
        line.startswith("::error file=taxonomy/compositional_skills/area/new/tasks.jsonl,line=17::") for line in errors
    )
    assert not project.trained and "### Signal" not in result.stdout


def test_an_exploitable_grader_fails_the_self_test(project: Project):
    leaf = project.add_good_skill()
    (leaf / "grader.json").write_text(json.dumps({"type": "python", "name": "x", "source": EXPLOITABLE}))
    project.commit()
    result = project.command("--precheck")
    assert result.exit_code == 1
    assert first_line(result.stdout) == "## FAIL: precheck: the grader of area/new can be cheated"
    assert re.search(r"\| area/new \| python \| 300 of 300 \| .* \| \*\*FAIL\*\* \|", result.stdout)


def improve(project: Project) -> None:
    """More training tasks for a skill that is there."""
    with (project.leaf("area/old") / "tasks.jsonl").open("a") as file:
        for task in questions("Another old", 60, 1000):
            file.write(json.dumps({**task, "split": "train"}) + "\n")


def edit_yardstick(project: Project) -> None:
    """Everything that could make a bad model look good."""
    leaf = project.leaf("area/old")
    grader = json.loads((leaf / "grader.json").read_text())
    (leaf / "grader.json").write_text(json.dumps({**grader, "labels": [*LABELS, "WELL"]}))
    rows = [json.loads(line) for line in (leaf / "tasks.jsonl").read_text().splitlines()]
    easy = [row for row in rows if row["split"] != "test" or "18?" not in row["messages"][-1]["content"]]
    for row in [row for row in easy if row["split"] == "test"][:20]:
        # What is asked in the test is to be learnt by heart.
        row["split"] = "train"
    (leaf / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in easy))
    (project.taxonomy / "rft.toml").write_text(RFT_TOML.replace("0.2", "0.9") + "margin = 1.0\n")
    (project.taxonomy / "baselines" / "main.json").write_text('{"everything": "wrong"}\n')
    with (project.root / "graders" / "shared.py").open("a") as file:
        file.write("\n# laxer, one day\n")


def test_an_edited_yardstick_changes_nothing(project: Project):
    improve(project)
    project.commit()
    honest = project.command("--annotate")
    assert honest.exit_code == 0, honest.stderr
    verdict, run = project.verdict(), project.trained[-1].run
    text = (run / "gate" / "verdict.json").read_bytes()
    learnt = (project.trained[-1].run / "manifest.json").read_bytes()
    assert "### Ignored" not in honest.stdout

    edit_yardstick(project)
    project.commit()
    edited = project.command("--annotate")
    assert edited.exit_code == 0, edited.stdout + edited.stderr
    assert project.trained[-1].run == run and project.verdict() == verdict
    assert (run / "gate" / "verdict.json").read_bytes() == text
    assert json.loads(learnt)["identity"] == json.loads((run / "manifest.json").read_bytes())["identity"]
    ignored = edited.stdout.split("### Ignored")[1].split("###")[0]
    for name in (
        "area/old/grader.json",
        "area/old/tasks.jsonl",
        "rft.toml",
        "baselines/main.json",
        "graders/shared.py",
    ):
        assert f"{name}:" in ignored, ignored
        assert re.search(rf"^::warning file=\S*{re.escape(name)}", edited.stdout, re.M)
    assert "training tasks are test tasks of the base" in ignored
    assert re.search(r"test tasks: 0 added or changed, \d+ gone", ignored)


def test_a_change_of_the_yardstick_alone_trains_nothing(project: Project):
    (project.root / "graders" / "shared.py").write_text(
        "# the same\n" + project.root.joinpath("graders/shared.py").read_text()
    )
    project.commit()
    result = project.command()
    assert result.exit_code == 0 and not project.trained
    assert "a person to decide" in first_line(result.stdout)
    assert "graders/shared.py" in result.stdout and "| area/watched | python |" in result.stdout


def test_a_laxer_shared_grader_fails_the_self_test_of_its_users(project: Project):
    (project.root / "graders" / "shared.py").write_text(LENIENT)
    project.commit()
    result = project.command("--precheck")
    assert result.exit_code == 1 and "area/watched can be cheated" in first_line(result.stdout)


def test_the_same_command_resumes(project: Project):
    project.add_good_skill()
    project.commit()
    project.interrupt = True
    stopped = project.command()
    assert stopped.exit_code == 130
    assert "resume with: ilab rft pr --base main --head HEAD" in stopped.stderr
    project.interrupt = False
    assert project.command().exit_code == 0
    first, second = project.trained
    assert first.run == second.run


def test_a_grader_that_asks_a_server_is_not_run(project: Project, monkeypatch):
    monkeypatch.setattr("rft_ilab.grading.remote.Remote.post", lambda *a: 1 / 0)
    leaf = project.add_good_skill()
    grader = {"type": "endpoint", "name": "x", "url": "http://198.51.100.7/", "headers": {"x": "${RFT_ENDPOINT_KEY}"}}
    (leaf / "grader.json").write_text(json.dumps(grader))
    project.commit()
    result = project.command()
    assert result.exit_code == 2 and first_line(result.stdout).startswith("## INCONCLUSIVE: a person has to look")
    assert not project.trained


def test_what_the_branch_waives_is_said_first(project: Project):
    leaf = project.add_good_skill()
    (leaf / "grader.json").write_text(json.dumps({"type": "python", "name": "x", "source": EXPLOITABLE}))
    (leaf / "grader.waivers.json").write_text(json.dumps(dict.fromkeys(NAMES, "trust me @all")))
    project.commit()
    result = project.command("--precheck")
    assert result.exit_code == 0, result.stdout
    said = result.stdout.split("###")[0]
    assert "- area/new: the branch itself says what of the self-test does not apply: " in said
    assert all(name in said for name in ("empty", "either-or", "mutant-")) and "@all" not in said


def test_a_skill_that_cannot_be_judged_fails_at_its_file(project: Project):
    rows = [{**row, "split": "train"} for row in questions("Item", 60)]
    write_skill(project.taxonomy, "area/new", rows=rows, qna=described("The new skill"))
    project.commit()
    result = project.command("--annotate")
    assert result.exit_code == 1 and not project.trained
    assert "::error file=taxonomy/compositional_skills/area/new/tasks.jsonl::no val tasks (add tasks)" in result.stdout


def test_a_skill_that_asks_for_endless_answers_fails(project: Project):
    project.add_good_skill()
    with (project.taxonomy / "rft.toml").open("a") as file:
        file.write('\n[skills."area/new"]\nmax_tokens = 1000000000\n')
    project.commit()
    result = project.command("--annotate")
    assert result.exit_code == 1 and "::error file=taxonomy/rft.toml::max_tokens of area/new is 1,000" in result.stdout


def test_no_change_and_no_skill(project: Project):
    (project.root / "README.md").write_text("more\n")
    project.commit()
    result = project.command()
    assert result.exit_code == 0 and first_line(result.stdout) == "## PASS: no skill was changed"
    assert "1 other file, not read" in result.stdout


def test_what_the_base_model_knows_already_is_said(project: Project, monkeypatch):
    rows = [{**row, "reference": LABELS[(i + (i % 5 != 0)) % 3]} for i, row in enumerate(questions("Item"))]
    monkeypatch.setattr("rft_ilab.pipeline.precheck.KNOWN", 0.1)
    write_skill(project.taxonomy, "area/new", rows=rows, qna=described("The new skill"))
    project.commit()
    result = project.command("--precheck")
    assert "there is little to learn" in result.stdout


def test_a_missing_base_is_one_line(project: Project):
    result = project.command("--base", "origin/none")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
