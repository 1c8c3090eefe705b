"""Pull requests that attack: each fails safely, with a clear line, and nothing of it runs outside of the cage."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from rft_ilab.config import Settings
from rft_ilab.skills import proposal as proposal_module
from rft_ilab.skills.tree import load_skill
from tests.e2e.pull_requests import Project, as_program, described, project, questions
from tests.unit.repositories import commit_all, git
from tests.unit.taxonomies import write_skill

__all__ = ["project"]

SECRET = "ghs_thisisthesecretthatnobodymaysee"
LEAF = "taxonomy/compositional_skills/area/new"


def flagged(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("::error ")]


def refused(project: Project, *words: str) -> str:
    """The precheck of what is committed: FAIL, with these words on the lines of errors; no traceback."""
    result = project.command("--precheck", "--annotate")
    assert result.exit_code == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr and "/tmp/" not in result.stdout.split("### Again")[0]
    errors = "\n".join(flagged(result.stdout))
    for word in words:
        assert word in errors, errors
    return result.stdout


def to_a_file(leaf: Path) -> None:
    (leaf / "tasks.jsonl").unlink()
    (leaf / "tasks.jsonl").symlink_to("/etc/passwd")


def to_a_directory(leaf: Path) -> None:
    (leaf / "extra").symlink_to("../../../../..")


def to_nothing(leaf: Path) -> None:
    (leaf / "grader.json").unlink()
    (leaf / "grader.json").symlink_to("/nonexistent/grader.json")


def as_generator(leaf: Path) -> None:
    (leaf / "generator.py").symlink_to("/proc/self/environ")


@pytest.mark.parametrize("attack", [to_a_file, to_a_directory, to_nothing, as_generator])
def test_links_are_never_followed(project: Project, attack: Callable[[Path], None]):
    attack(project.add_good_skill())
    project.commit()
    said = refused(project, f"file={LEAF}/", "is a symbolic link")
    assert "root:" not in said


@pytest.mark.parametrize(
    "place", ["taxonomy/compositional_skills", "taxonomy/compositional_skills/area", "graders", "taxonomy/rft.toml"]
)
def test_nor_is_a_link_in_place_of_what_is_read(project: Project, place: str):
    git(project.root, "rm", "-rq", place)
    (project.root / place).parent.mkdir(parents=True, exist_ok=True)
    (project.root / place).symlink_to("/etc")
    project.commit()
    refused(project, f"file={place}", "is a symbolic link")


def test_a_submodule_is_no_skill(project: Project):
    project.add_good_skill()
    project.commit()
    head = git(project.root, "rev-parse", "HEAD")
    git(project.root, "update-index", "--add", "--cacheinfo", f"160000,{head},{LEAF}/module")
    (project.root / ".gitmodules").write_text(
        f'[submodule "x"]\n\tpath = {LEAF}/module\n\turl = ext::sh -c "touch /tmp/no"\n'
    )
    git(project.root, "add", ".gitmodules")
    git(project.root, "commit", "-qm", "module")
    said = refused(project, "is a submodule")
    assert ".gitmodules: changed here; git acts on it" in said


@pytest.mark.parametrize("name", ["..", ".git", "a\x1b[2J", "x" * 300])
def test_names_that_no_file_may_have(project: Project, name: str):
    project.add_good_skill()
    project.commit()
    blob = git(project.root, "hash-object", "-w", "--stdin", stdin=b"x")
    entry = b"100644 %s\0" % name.encode() + bytes.fromhex(blob)
    tree = git(project.root, "hash-object", "-t", "tree", "--literally", "-w", "--stdin", stdin=entry)
    # Not through the index, which refuses such names: trees by hand, from the leaf up to the top.
    child = "evil"
    for folder in (LEAF, *map(str, Path(LEAF).parents)):
        where = "HEAD^{tree}" if folder == "." else f"HEAD:{folder}"
        listing = [] if folder == LEAF else git(project.root, "ls-tree", where).splitlines()
        rest = [line for line in listing if line.split("\t")[1] != child]
        tree = git(project.root, "mktree", stdin="\n".join([*rest, f"040000 tree {tree}\t{child}", ""]).encode())
        child = Path(folder).name
    commit = git(project.root, "commit-tree", tree, "-p", "HEAD", "-m", "evil")
    before = sorted(Path("/tmp").glob("rft-head-*"))
    result = project.command("--precheck", "--annotate", "--head", commit)
    assert result.exit_code == 1 and re.search(
        "a name that (no file may have|is too long)", "\n".join(flagged(result.stdout))
    )
    assert "\x1b" not in result.stdout + result.stderr
    assert sorted(Path("/tmp").glob("rft-head-*")) == before


def test_a_name_of_a_grader_leads_nowhere(project: Project):
    leaf = project.add_good_skill()
    (leaf / "grader.json").write_text('{"type": "ref", "name": "../../../../etc/passwd"}')
    project.commit()
    assert "root:" not in refused(project, "bad name '../../../../etc/passwd' of a ref")


def test_a_yaml_bomb(project: Project):
    leaf = project.add_good_skill()
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
    )
    (leaf / "qna.yaml").write_text(bomb + described("x"))
    project.commit()
    refused(project, f"file={LEAF}/qna.yaml,line=2::", "alias *a: write it out")


@pytest.mark.parametrize(
    "text, words",
    [
        ("x" * (1 << 20), "1,048,576 bytes are more than the limit of 1,000,000"),
        ("{}\n" * 2000, "2,000 lines are more than the limit of 1,000"),
        ("[" * 200_000 + "\n", "nested too deeply"),
        ('{"messages": ' + "9" * 5000 + "}\n", "not valid JSON"),
    ],
    ids=["one line", "many rows", "deep", "long number"],
)
def test_floods(project: Project, monkeypatch: pytest.MonkeyPatch, text: str, words: str):
    monkeypatch.setattr(proposal_module, "MAX_FILE_BYTES", 1_000_000)
    monkeypatch.setattr(proposal_module, "MAX_ROWS", 1000)
    leaf = project.add_good_skill()
    (leaf / "tasks.jsonl").write_text(text)
    project.commit()
    refused(project, f"file={LEAF}/tasks.jsonl", words)


def test_thousands_of_bad_rows_make_a_short_report(project: Project):
    leaf = project.add_good_skill()
    (leaf / "tasks.jsonl").write_text("{}\n" * 5000)
    project.commit()
    said = refused(project, "no messages")
    assert len(flagged(said)) == 10 and len(said) < 20_000 and "more" in said


def test_names_that_differ_in_case_alone(project: Project):
    leaf = project.add_good_skill()
    (leaf / "GRADER.json").write_text("{}")
    project.commit()
    refused(project, "the same name as", "on file systems that ignore case")


def test_folders_that_differ_in_case_alone(project: Project):
    write_skill(project.taxonomy, "Area/new", rows=questions("Item", 30), qna=described("x"))
    project.commit()
    refused(
        project, "file=taxonomy/compositional_skills/Area/new/", "the same name as 'taxonomy/compositional_skills/area'"
    )


ATTACKS = {
    "environment": "import os\nraise ValueError(repr(dict(os.environ)))",
    "proc": "raise ValueError(open('/proc/self/environ').read())",
    "parent": "import os\nraise ValueError(open(f'/proc/{os.getppid()}/environ').read())",
    "fork": "import os\nwhile True: os.fork()",
    "write": "open(MARKER, 'w').write('x')",
    "socket": "import socket\ns = socket.create_connection(('127.0.0.1', PORT)); s.send(b'x')",
    "commands": "raise ValueError('\\n::error::forged\\n::add-mask::x\\n##[error]forged')",
}


@pytest.mark.parametrize("where", ["grader", "generator"])
def test_code_of_the_branch_sees_and_does_nothing(project: Project, tmp_path: Path, where: str):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        marker, port = tmp_path / "marker", server.getsockname()[1]
        for name, body in ATTACKS.items():
            code = body.replace("MARKER", repr(str(marker))).replace("PORT", str(port))
            head = "def grade(sample, item):\n" if where == "grader" else "def tasks(seed):\n"
            leaf = write_skill(project.taxonomy, f"area/{name}", rows=questions("Item", 30), qna=described(name))
            source = head + textwrap.indent(code, "    ") + ("" if where == "grader" else "\n    yield {}")
            if where == "grader":
                (leaf / "grader.json").write_text(json.dumps({"type": "python", "name": "x", "source": source}))
            else:
                (leaf / "generator.py").write_text(source)
        project.commit()
        summary = tmp_path / "summary.md"
        options = ("--taxonomy-path", str(project.taxonomy), "--base", "main", "--precheck")
        secrets = {"GITHUB_TOKEN": SECRET, "OPENAI_API_KEY": SECRET, "RFT_ENDPOINT_KEY": SECRET, "SECRET": SECRET}
        actions = {"GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_STEP_SUMMARY": str(summary)}
        done = as_program(tmp_path, *options, cwd=tmp_path, **secrets, **actions)
        with pytest.raises(TimeoutError):
            server.accept()
    assert done.returncode == 1, done.stdout + done.stderr
    assert not marker.exists()
    everything = done.stdout + done.stderr + summary.read_text()
    assert SECRET not in everything and "Traceback" not in everything
    for name in ATTACKS:
        assert f"area/{name}/" in everything
    _obeys_only_us(done.stdout)


def _obeys_only_us(output: str) -> None:
    """What the runner of GitHub Actions would obey: the switch, and after it our annotations."""
    lines = output.splitlines()
    commands = [line for line in lines if line.lstrip().startswith("::") or "##[" in line]
    first, token = commands[0], commands[0].removeprefix("::stop-commands::")
    assert first.startswith("::stop-commands::") and lines[0] == first
    after = lines[lines.index(f"::{token}::") + 1 :]
    assert after and all(re.match(r"::(error|warning|notice) file=[^:]+::", line) for line in after)


def test_files_that_tools_act_on_have_no_influence_and_are_named(project: Project, tmp_path: Path):
    """The working tree holds the branch, and the program is started inside of it."""
    leaf = project.add_good_skill()
    (leaf / "grader.json").write_text("{}")  # ends before a model is needed
    marker = tmp_path / "marker"
    evil = f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n"
    for name in ("conftest.py", "sitecustomize.py", "usercustomize.py", "setup.py", "json.py", "click.py", "yaml.py"):
        (project.root / name).write_text(evil)
    (project.root / "evil.pth").write_text(evil)
    (project.root / "rft_ilab").mkdir()
    (project.root / "rft_ilab" / "__init__.py").write_text(evil)
    (project.root / ".gitattributes").write_text("* filter=evil diff=evil ident text eol=crlf\n")
    workflows = project.root / ".github" / "workflows"
    workflows.mkdir(parents=True)
    (workflows / "rft-precheck.yaml").write_text("on: pull_request\njobs: {}\n")
    git(project.root, "add", "-A")
    git(project.root, "commit", "-qm", "evil")
    for kind in ("smudge", "clean", "process"):
        git(project.root, "config", f"filter.evil.{kind}", f"touch {marker}; cat")
    git(project.root, "config", "diff.evil.textconv", f"touch {marker}; cat")
    git(project.root, "config", "diff.external", f"touch {marker}")
    git(project.root, "config", "core.fsmonitor", f"touch {marker}")
    options = ("--taxonomy-path", "taxonomy", "--base", "main", "--head", git(project.root, "rev-parse", "HEAD"))
    done = as_program(tmp_path, *options, cwd=project.root, GITHUB_ACTIONS="true", CI="true")
    assert done.returncode == 1 and not marker.exists(), done.stdout + done.stderr
    loud = done.stdout.split("### Look at these files yourself")[1].split("###")[0].replace("\\", "")
    for name in (
        ".github/workflows/rft-precheck.yaml",
        ".gitattributes",
        "conftest.py",
        "sitecustomize.py",
        "evil.pth",
        "rft_ilab/__init__.py",
    ):
        assert f"- {name}: " in loud
    assert "::warning file=.github/workflows/rft-precheck.yaml::changed here; GitHub runs it" in done.stdout


def test_code_of_rft_ilab_may_not_come_from_the_branch(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rft_ilab.__file__", str(project.root / "rft_ilab" / "__init__.py"))
    result = project.command("--precheck")
    assert result.exit_code == 2 and "rft-ilab itself comes from the repository" in result.stderr


EVIL_TEXT = (
    "</details></pre><script>alert(1)</script><img src=x onerror=alert(1)> ![x](https://evil.example/x.png) "
    "@everyone #1 [click](javascript:alert(1)) `code` ``` <!-- rft-ilab --> \x1b[31m\u202e ::error::forged 5?"
)


def test_nothing_of_a_text_becomes_markup(project: Project):
    rows = questions("Item", 60)
    for row in rows:
        row["messages"][-1]["content"] = f"{EVIL_TEXT} {row['messages'][-1]['content']}"
    leaf = write_skill(project.taxonomy, "area/new", rows=rows, qna=described("The new skill"))
    (leaf / "a<img src=x>@all`|x.md").write_text("x")
    plain = project.taxonomy / "compositional_skills" / "area" / "<b>@all|`x"
    plain.mkdir()
    (plain / "qna.yaml").write_text(described("x"))
    project.commit()
    result = project.command("--precheck", "--annotate")
    assert result.exit_code == 0, result.stdout + result.stderr
    text = result.stdout
    for live in ("<script", "<img", "![x]", "@everyone", "@all", "](javascript", "<!--", "\x1b", "\u202e", "https://"):
        assert live not in text, live
    assert text.count("<details>") == text.count("</details>") == 1 and text.count("<pre>") == text.count("</pre>")
    _nothing_obeyed(text)


def _nothing_obeyed(text: str) -> None:
    lines = [line for line in text.splitlines() if line.lstrip().startswith("::")]
    assert all(
        line.startswith(("::stop-commands::", "::warning file=", f"::{lines[0].split('::')[2]}::")) for line in lines
    )


def test_a_table_of_settings_of_a_new_skill_cannot_change_those_of_others(project: Project):
    project.add_good_skill()
    with (project.taxonomy / "rft.toml").open("a") as file:
        file.write(
            '\n[skills."area/new"]\nmax_tokens = 8\n\n[skills."area/watched"]\nmargin = 1.0\ntier = "advisory"\n'
        )
    project.commit()
    result = project.command()
    assert result.exit_code == 0, result.stdout
    assert "taxonomy/rft.toml: judges; that of the base is used" in result.stdout
    watched = next(row for row in project.verdict()["watched"] if row["skill"] == "area/watched")
    assert watched["margin"] == 0.2 and watched["tier"] == "supporting"
    assert os.environ["RFT_ILAB_UNTRUSTED"] == "1"


def test_a_repository_inside_a_leaf_is_none(project: Project, tmp_path: Path):
    """git takes any directory with HEAD, objects and refs for a repository, and runs what its config names."""
    leaf, touched = project.add_good_skill(), tmp_path / "touched"
    inner = tmp_path / "inner"
    (inner / "f").parent.mkdir()
    (inner / "f").write_text("x")
    commit_all(inner)
    head, _, message = git(inner, "cat-file", "commit", "HEAD").partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----"
    signed = f"{head}\n{signature}\n\n{message}\n".encode()
    commit = git(inner, "hash-object", "-t", "commit", "-w", "--stdin", stdin=signed)
    shutil.copytree(inner / ".git" / "objects", leaf / "objects")
    (leaf / "refs" / "heads").mkdir(parents=True)
    (leaf / "refs" / "heads" / "main").write_text(f"{commit}\n")
    (leaf / "HEAD").write_text("ref: refs/heads/main\n")
    (leaf / "program").write_text(f"#!/bin/sh\ntouch {touched}\n")
    (leaf / "program").chmod(0o755)
    config = "[core]\nrepositoryformatversion = 0\nbare = true\n[log]\nshowSignature = true\n[gpg]\nprogram = {}\n"
    (leaf / "config").write_text(config.format(leaf / "program"))
    git(project.root, "add", "-f", ".")
    project.commit()
    refused(project, f"file={LEAF}/HEAD::a name that no file may have")
    assert load_skill(project.taxonomy, "area/new", Settings()).commit == "unversioned"
    assert not touched.exists()


def test_a_few_trees_that_hold_a_billion_files(project: Project):
    tree, kind = git(project.root, "hash-object", "-w", "--stdin", stdin=b"x"), "100644 blob"
    for _ in range(9):
        listing = "".join(f"{kind} {tree}\td{number}\n" for number in range(10))
        tree, kind = git(project.root, "mktree", stdin=listing.encode()), "040000 tree"
    commit = git(project.root, "commit-tree", tree, "-p", "HEAD", "-m", "bomb")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = project.command("--precheck", "--head", commit)
    assert result.exit_code == 2 and "more than 64 MiB of names of files" in result.stderr
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB
