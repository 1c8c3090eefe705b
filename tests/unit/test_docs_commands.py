"""Every block of README.md and docs/*.md is run, or stands here with the reason why not; click reads every command.

A block is run by a test of its own (``ELSEWHERE``), by this file (``RUN``, and the snippets below), or it is listed in
``NOT_RUN``. A command in text or in a table, and every option that is named there, has to exist.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
import yaml

from rft_ilab.config import Settings, load_settings
from rft_ilab.grading.engine import build_grader
from rft_ilab.grading.proof.waivers import read_waivers
from rft_ilab.rl.objective import group_advantages
from rft_ilab.scaleout.server import make_app
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import Cache
from rft_ilab.synth.sources import from_generator
from tests.unit.documents import (
    GENERATED,
    ROOT,
    Block,
    blocks,
    documents,
    ilab_commands,
    inline,
    known_options,
    lines,
    parsed,
)
from tests.unit.loopback import EXACT, serving
from tests.unit.scratch import RFT_TOML, Scratch, scratch, table
from tests.unit.taxonomies import make_rollout, make_skill, make_task, plain_rows, write_skill
from tests.unit.test_ship import TARGET, trained  # noqa: F401 - a fixture

# (document, language) -> the test that runs or compares all such blocks; it names the document.
ELSEWHERE = {
    ("tutorial.md", "console"): "tests/e2e/test_ilab_tutorial.py",
    ("tutorial.md", "python"): "tests/e2e/test_ilab_tutorial.py",
    ("import-export.md", "console"): "tests/unit/test_import_export_doc.py",
    ("import-export.md", "csv"): "tests/unit/test_import_export_doc.py",
    ("pytest.md", "console"): "tests/unit/test_pytest_plugin.py",
    ("pytest.md", "text"): "tests/unit/test_pytest_plugin.py",
    ("grader-types.md", "json"): "tests/unit/test_grading_engine.py",
    ("generation.md", "yaml"): "tests/unit/test_sdg_generation.py",
    ("open-instruct.md", "text"): "tests/unit/test_openinstruct_plan.py",
    (GENERATED, "text"): "tests/unit/test_docs.py",
}
# Documents of which all commands are run here, but for those in NOT_RUN.
RUN = (
    "baselines.md",
    "compare.md",
    "pull-requests.md",
    "ship.md",
    "statistics.md",
    "suites.md",
    "verdict.md",
    "data.md",
)
# The beginning of a line, or a document -> why it is not run. `ilab` in it is read by click all the same.
NOT_RUN = {
    "make train": "installs, then eight minutes; tests/e2e/test_ilab_make.py runs the Makefile",
    "make test": "this is one of them",
    "torchrun": "two processes: tests/unit/test_parallel.py",
    "ilab rft pr --base origin/main  ": "trains: tests/e2e/test_pull_requests.py",
    "ilab data verify --run demo --generated": "needs a teacher that knows something: tests/unit/test_data_stage.py",
    "ilab model regress --suite gsm8k": "1,419 long answers: tests/unit/test_suites.py",
    "ilab model regress --suite lm_eval": "needs lm_eval and its data: tests/unit/test_suites_harness.py",
    "open-instruct.md": "needs GPUs; with a stand-in: tests/unit/test_openinstruct_run.py",
    "open-instruct-rewards.md": "needs Open-Instruct: tests/e2e/test_open_instruct_rewards.py",
    "scale-out.md": "needs other machines: tests/unit/test_ray.py, tests/unit/test_endpoint_servers.py",
    "training.md": "trains for minutes: tests/e2e/test_ilab_train.py, tests/unit/test_tracking.py",
}
# Output and pictures: the first line of the block -> what holds it against the code, or why nothing does.
SHOWN = {
    "taxonomy/compositional_skills/healthcare/patient_triage/": "test_the_files_of_a_skill",
    " git taxonomy ": "a picture",
    '"0265a64957c3bbee": ': "test_lines_that_were_copied",
    "skill                      tasks  A ": "shortened: tests/golden/compare_two.txt, of three models",
    "date (UTC)  commit ": "test_lines_that_were_copied",
    "refills.csv:31: error": "test_lines_that_were_copied",
    "{'REFILL': 0.25": "test_the_numbers_of_the_explanation",
    "34 tokens": "test_the_numbers_of_the_explanation",
}
# Snippets that are run or read here.
SNIPPETS = {
    ("engine.md", "python"): "test_the_numbers_of_the_explanation",
    ("data.md", "python"): "test_the_generator",
    ("grader-server.md", "python"): "test_openai_client",
    ("sandbox.md", "python"): "test_the_grader_that_runs_a_solution",
    ("graders.md", "json"): "test_the_waivers",
    ("suites.md", "toml"): "test_the_settings",
    ("baselines.md", "yaml"): "test_the_steps_of_a_workflow",
    ("verdict.md", "yaml"): "test_the_steps_of_a_workflow",
}
# Options of other programs that the documents name.
FOREIGN = {
    *("--apply_chat_template", "--fewshot_as_multiturn", "--chat-template"),
    *("--apply_r1_style_format_reward", "--cache_dataset_only", "--checkpoint_state_dir", "--code_api_url"),
    *("--code_apply_perf_penalty", "--code_pass_rate_reward_threshold", "--dataset_mixer_list"),
    *("--mask_truncated_completions", "--verification_reward", "--dashboard-agent-listen-port", "--frozen"),
    *("--offline", "--persona", "--collect-only", "--continue-on-collection-errors", "--dist"),
    *("--doctest-modules", "--junitxml", "--lf"),
}
CONSOLE = [block for block in blocks("console") if (block.document, "console") not in ELSEWHERE]


def reason(block: Block, line: str) -> str | None:
    """Why this line of the block is not run; None if it is."""
    return NOT_RUN.get(block.document) or next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)


def test_every_block_is_accounted_for() -> None:
    lost = []
    for block in blocks():
        kind = (block.document, block.language)
        listed = block.language == "text" and any(block.text.startswith(start) for start in SHOWN)
        whole = block.language == "console" and (
            block.document in RUN or all(reason(block, line) for line in lines(block))
        )
        if kind not in ELSEWHERE and kind not in SNIPPETS and not (listed or whole):
            lost.append(str(block))
    assert not lost, f"{lost}: run them (RUN, or a test of their own), or say in NOT_RUN or SHOWN why not"


def test_no_list_of_this_file_names_what_is_gone() -> None:
    there = blocks()
    for (document, language), test in ELSEWHERE.items():
        assert any((b.document, b.language) == (document, language) for b in there), document
        assert document in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not read {document}"
    commands = [line for block in there if block.language == "console" for line in lines(block)]
    for start, why in NOT_RUN.items():
        assert start in documents() or any(line.startswith(start.strip()) for line in commands), start
        assert all((ROOT / test).exists() for test in re.findall(r"tests/\S+\.py", why)), why
    for start, holder in SHOWN.items():
        assert any(b.text.startswith(start) for b in there), start
        assert not holder.startswith("test_") or holder in globals(), holder
    for kind, test in SNIPPETS.items():
        assert any((b.document, b.language) == kind for b in there) and test in globals(), kind


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_click_reads_every_command(block: Block) -> None:
    for line in lines(block):
        for words in ilab_commands(line):
            parsed(words)


def test_click_reads_every_command_of_a_sentence_or_a_table() -> None:
    count = 0
    for document, code in inline():
        words = re.sub(r"[\[\]]|\.venv/bin/(?=ilab)", "", code)
        if re.match(r"(?:[A-Z_]+=\S* )*ilab ", words):
            for call in ilab_commands(words):
                try:
                    parsed(call, whole=False)
                except click.BadOptionUsage as error:
                    # An option may be named without its value.
                    assert call[-1].startswith("--") and "requires an argument" in error.message, (document, code)
                except click.UsageError as error:
                    pytest.fail(f"{document}: `{code}`: {error.format_message()}")
                count += 1
    assert count > 80


def test_every_option_that_is_named_exists() -> None:
    own = "".join(
        path.read_text(encoding="utf-8")
        for path in (*ROOT.glob("tools/*.py"), *ROOT.glob("rft_ilab/pytest_plugin/*.py"))
    )
    named = {(document, one) for document, code in inline() for one in re.findall(r"(?:^|\s)(--[a-z][\w-]+)", code)}
    unknown = {(d, o) for d, o in named if o not in known_options() | FOREIGN and f'"{o}"' not in own}
    assert not unknown
    assert {option for _, option in named} >= FOREIGN, "FOREIGN names an option that no document does"


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.M))
    said = [code for _, code in inline() if code.startswith("make ")]
    said += [line for block in blocks("console") for line in lines(block) if line.startswith("make ")]
    assert len(said) > 20
    for command in said:
        for word in shlex.split(command, comments=True)[1:]:
            name, assigned, _ = word.partition("=")
            if assigned:
                assert re.search(rf"\$\({name}\)|\b{name} :?\?=|\$\(if \$\({name}\)|{name}", makefile), command
            elif re.fullmatch(r"[a-z][\w-]*", word):
                assert word in targets, command


# Commands, run in a scratch project with a tiny model


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    return scratch(tmp_path, monkeypatch)


def prepared(project: Scratch, document: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """What the commands of a document presuppose; returns the words that are other ones in this project."""
    if document in ("baselines.md", "statistics.md", "suites.md", "verdict.md", "compare.md"):
        for seed, name in enumerate(("train", "train-seed0", "train-seed1"), 10):
            project.run(name, seed)
    if document == "ship.md":
        made = request.getfixturevalue("trained")
        shutil.copytree(made / "run", project.runs / "s0")
        write_skill(project.root / "taxonomy", TARGET, rows=plain_rows()[:30])
        (project.root / "taxonomy/rft.toml").write_text(RFT_TOML + table(TARGET, "target"))
        return {"path/to/bundle": str(project.runs / "s0" / "bundle")}
    if document == "verdict.md":
        project("ilab model regress --model DIRECTORY --baseline ./candidate --run check")
        rows = (project.runs / "check/gate/results.jsonl").read_text().splitlines()
        return {"0ec5b019": json.loads(rows[0])["task_id"][:12]}
    if document == "data.md":
        project("ilab data verify --run demo --tasks 4 --samples 2", fails=True)  # nothing right, which it says
        row = json.loads((project.runs / "demo/data/ledger.jsonl").read_text().splitlines()[0])
        return {"3f2a91": row.get("id", row.get("task_id"))[:12]}
    return {}


@pytest.mark.parametrize("document", RUN)
def test_the_commands_of(document: str, project: Scratch, request: pytest.FixtureRequest) -> None:
    names = prepared(project, document, request)
    ran = 0
    for block in (block for block in CONSOLE if block.document == document):
        raw = [line.removeprefix("$ ") for line in block.text.splitlines()]
        for line in lines(block):
            start = next(one for one in raw if one.startswith(line))
            if reason(block, start) is None:
                for there, here in names.items():
                    line = line.replace(there, here)
                project(line)
                ran += 1
    assert ran


# Snippets and output


def only(document: str, language: str) -> str:
    (block,) = (b for b in blocks(language) if b.document == document)
    return block.text


def starting(start: str) -> str:
    (block,) = (b for b in blocks("text") if b.text.startswith(start))
    return block.text


def test_the_numbers_of_the_explanation() -> None:
    """Every program of engine.md prints what stands below it."""
    shown = [b for b in blocks("python", "text") if b.document == "engine.md"]
    assert [b.language for b in shown] == ["python", "text"] * (len(shown) // 2) and shown
    for program, output in zip(shown[::2], shown[1::2], strict=True):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(program.text, str(program), "exec"), {})
        assert said.getvalue() == output.text, str(program)


def test_the_arithmetic_of_the_explanation() -> None:
    text = documents()["engine.md"]
    chances, shares = (
        re.findall(r"(\d+) %", row) for row in re.findall(r"^\| (?:chance of|groups of 8).*$", text, re.M)
    )
    assert len(chances) == 6
    for chance, share in zip(chances, shares, strict=True):
        p = int(chance) / 100
        assert round(100 * (1 - p**8 - (1 - p) ** 8)) == int(share)
    first, second = group_advantages([1.0] * 2 + [0.0] * 6)[1:3]
    assert f"+{first:.2f}" in text and f"{second:.2f}" in text
    assert round(0.9 * math.log(1.8) + 0.1 * math.log(0.2), 2) == 0.37 and "0.9 ln 1.8 + 0.1 ln 0.2 = 0.37" in text


def test_the_generator(tmp_path: Path) -> None:
    write_skill(tmp_path, "area/sums", grader=EXACT).joinpath("generator.py").write_text(only("data.md", "python"))
    proposals = from_generator(load_skill(tmp_path, "area/sums", Settings()), 5, 0, Cache(tmp_path / "cache"))
    assert len(proposals) == 5


def test_openai_client() -> None:
    with serving(make_app(taxonomy=None)) as url:
        scope = {"openai": pytest.importorskip("openai"), "grader": EXACT}
        program = only("grader-server.md", "python").replace("http://127.0.0.1:8790", url)
        last = program.rstrip().rpartition("\n")[2]
        exec(program.replace(last, f"said = {last}"), scope)
    assert scope["said"].reward == 1.0


def test_the_grader_that_runs_a_solution() -> None:
    grader = build_grader(make_skill({"type": "python", "name": "add", "source": only("sandbox.md", "python")}))
    task = make_task({"sum": 5})
    answers = ["def add(a, b): return a + b", "def add(a, b): return a - b"]
    assert [g.score for g in grader.grade([(task, make_rollout(a)) for a in answers])] == [1.0, 0.0]


def test_the_waivers(tmp_path: Path) -> None:
    (tmp_path / "grader.waivers.json").write_text(only("graders.md", "json"))
    waivers, findings = read_waivers(tmp_path / "grader.json")
    assert len(waivers) == 1 and not findings


def test_the_settings(tmp_path: Path) -> None:
    (tmp_path / "rft.toml").write_text(only("suites.md", "toml"))
    assert set(load_settings(tmp_path).suites) == {"gsm8k", "lm_eval:arc_easy"}


@pytest.mark.parametrize("document", ["baselines.md", "verdict.md"])
def test_the_steps_of_a_workflow(document: str) -> None:
    calls = [call for step in yaml.safe_load(only(document, "yaml")) for call in ilab_commands(step.get("run", ""))]
    assert calls
    for call in calls:
        parsed(call)


def test_the_files_of_a_skill() -> None:
    tree = starting("taxonomy/compositional_skills/healthcare/patient_triage/")
    names = [line.split()[0] for line in tree.splitlines()]
    optional = {line.split()[0] for line in tree.splitlines() if "optional:" in line}
    leaf = names[0]
    for line, name in zip(tree.splitlines()[1:], names[1:], strict=True):
        assert name in optional or (ROOT / (leaf if line.startswith(" ") else "") / name).exists(), name


def test_lines_that_were_copied() -> None:
    assert starting('"0265a64957c3bbee"').strip() in (ROOT / "taxonomy/baselines/embedded.json").read_text()
    golden = (ROOT / "tests/golden/history.txt").read_text(encoding="utf-8")
    assert all(line in golden for line in starting("date (UTC)").splitlines())
    code = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("rft_ilab/**/*.py"))
    for line in starting("refills.csv:31").splitlines():
        repair = line.rsplit("(", 1)[1].rstrip(")")
        assert any(part in code for part in (repair, repair.partition(",")[0])), line
