"""Bad input to the real ``ilab``: one clear line with the place, exit code 2, no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

SCRIPTS = Path(sysconfig.get_path("scripts"))


def assert_one_line(result, *says: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "Traceback" not in result.stderr, result.stderr
    for text in says:
        assert text in errors[0]


def assert_finding(result, *says: str) -> None:
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stdout + result.stderr
    assert any(all(text in line for text in ("error: ", *says)) for line in result.stdout.splitlines()), result.stdout


def break_line(path, number, text):
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_good_taxonomy_has_no_findings(ilab):
    result = ilab("taxonomy", "lint")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 errors" in result.stderr
    findings = json.loads(ilab("taxonomy", "lint", "--json").stdout)
    assert [finding for finding in findings if finding["severity"] == "error"] == []


BREAK = {
    "no grader": (lambda skill: (skill / "grader.json").unlink(), ["grader.json"]),
    "grader is not JSON": (lambda skill: (skill / "grader.json").write_text('{"type":\n oops}'), ["grader.json:2"]),
    "unknown grader": (lambda skill: (skill / "grader.json").write_text('{"type": "magic"}'), ["grader.json", "magic"]),
    "broken task line": (lambda skill: break_line(skill / "tasks.jsonl", 3, '{"messages": ['), ["tasks.jsonl:3"]),
    "unknown label": (
        lambda skill: break_line(
            skill / "tasks.jsonl", 2, '{"messages": [{"role": "user", "content": "a"}], "reference": "blue"}'
        ),
        ["tasks.jsonl:2", "blue"],
    ),
    "empty skill": (lambda skill: (skill / "tasks.jsonl").write_text(""), ["tasks.jsonl"]),
    "no qna": (lambda skill: (skill / "qna.yaml").unlink(), ["qna.yaml"]),
}


@pytest.mark.parametrize("kind", BREAK)
def test_lint_names_the_place(ilab, skill, kind):
    damage, says = BREAK[kind]
    damage(skill)
    assert_finding(ilab("taxonomy", "lint"), *says)
    findings = json.loads(ilab("taxonomy", "lint", "--json").stdout)
    assert any(finding["severity"] == "error" and finding["file"] for finding in findings)


@pytest.mark.parametrize("kind", BREAK)
def test_a_run_refuses_a_broken_skill_before_any_work(ilab, skill, kind):
    damage, says = BREAK[kind]
    damage(skill)
    assert_one_line(ilab("rft", "run", "--run", "x"), *says)


@pytest.mark.parametrize("command", [("data", "verify"), ("model", "rft"), ("rft", "run")], ids=" ".join)
class TestEveryStartingCommand:
    def test_no_taxonomy(self, ilab, command):
        assert_one_line(ilab(*command, "--taxonomy-path", "absent"), "absent", "no such taxonomy directory")

    def test_bad_settings(self, ilab, command):
        (ilab.taxonomy / "rft.toml").write_text("[train]\nstep = 3\n", encoding="utf-8")
        assert_one_line(ilab(*command), "rft.toml", "'step'")

    def test_unknown_target(self, ilab, command):
        assert_one_line(ilab(*command, "--target", "demo/absent"), "demo/absent")

    def test_a_directory_that_is_no_model(self, ilab, command):
        assert_one_line(ilab(*command, "--model", ilab.home), str(ilab.home))

    def test_a_model_that_is_not_there(self, ilab, command):
        assert_one_line(ilab(*command, "--model", "/absent/model"), "/absent/model")

    def test_an_endpoint_that_is_not_there(self, ilab, command):
        assert_one_line(ilab(*command, "--endpoint", "http://127.0.0.1:9"), "127.0.0.1:9")


def own_file_system(*command):
    """``(directory, program, *arguments)``: a file system of one page on the directory, in a namespace of its own."""
    mount = 'mount -t tmpfs -o size=4k tmpfs "$0" && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, *map(str, command)]


def can_mount(directory) -> bool:
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(own_file_system(directory, "true"), capture_output=True).returncode
    )


def test_a_full_disk(ilab):
    disk = ilab.root / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("no user namespaces here")
    command = own_file_system(disk, SCRIPTS / "ilab", "rft", "run", "--run", disk / "run")
    result = subprocess.run(
        command,
        env=ilab.environment,
        cwd=ilab.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert_one_line(result, "no space left on the disk, ")


def test_regress_without_a_run(ilab):
    assert_one_line(ilab("model", "regress"), "no run here yet", "ilab rft run")
    assert_one_line(ilab("model", "regress", "--run", "absent"), "no such run")


def test_report_without_a_run(ilab):
    assert_one_line(ilab("rft", "report"), "no run here yet", "ilab rft run")
    assert_one_line(ilab("rft", "report", "absent"), "no such run")
    assert_one_line(ilab("rft", "report", "absent", "--json"), "no such run")


def test_train_with_rft_checks_the_taxonomy_before_it_trains(ilab):
    shutil.rmtree(ilab.taxonomy / "compositional_skills")
    data = ilab.root / "data.jsonl"
    data.write_text("", encoding="utf-8")
    result = ilab("model", "train", "--rft", "--pipeline", "full", "--device", "cpu", "--data-path", data)
    assert_one_line(result, "compositional_skills")


def test_refused_combinations(ilab):
    assert_one_line(ilab("train", "--rft", "--pipeline", "simple"), "--rft needs --pipeline full or accelerated")
    assert_one_line(ilab("generate", "--verify", "-dt"), "--verify cannot be combined with --detached")
