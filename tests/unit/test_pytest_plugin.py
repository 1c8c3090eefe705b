"""Skills as tests: what is collected, asked, passed, failed and said, and that other people's tests notice nothing."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import rft_ilab.pytest_plugin.session  # pytester drops what a run imports, and numpy cannot come twice
from tests.unit.loopback import FakeOpenAI, failure, serving
from tests.unit.taxonomies import plain_rows, row, write_skill

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
PLUGIN = ("-p", "rft_ilab.pytest_plugin")
LEAF = "taxonomy/compositional_skills/area/skill/tasks.jsonl"
# Right, wrong and error for the answer YES.
RAISES = {
    "type": "python",
    "name": "raises",
    "source": "def grade(sample, item):\n    return (sample['output_text'] == item['reference']) / item['divisor']\n",
}


def inside(world, *arguments):
    """Run pytest in this process, with the plugin whether or not it is installed."""
    return world.runpytest_inprocess(*arguments, plugins=[rft_ilab.pytest_plugin])


def three_rows():
    return [
        row("Is it on?", "YES", split="test", group="on/off", divisor=1),
        row("Is it\noff?", "NO", split="test", group="on/off", divisor=1),
        row("Is it raining?", "YES", split="test", id="rain", divisor=1),
        row("Never asked?", "YES", split="train", divisor=1),
    ]


@pytest.fixture
def world(pytester, monkeypatch):
    """An empty directory with caches of its own; pytester's HOME is there, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(pytester.path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "160")
    # Others cost seconds in every run (hypothesis), or bring pydantic, which brings a hook of ours (langsmith).
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


@pytest.fixture
def fake():
    """A server that says YES to everything."""
    server = FakeOpenAI()
    server.says = lambda body: "YES"
    with serving(server.app) as url:
        server.url = f"{url}/v1"
        yield server


@pytest.fixture
def run(world, fake):
    """Run pytest on ``taxonomy`` (or what else is named) with the server as the model."""

    def run(*arguments, where="taxonomy"):
        model = (f"--rft-model={fake.url}", "--rft-endpoint-model=m")
        return inside(world, *model, *([where] if where else []), *arguments)

    return run


def prompts(fake):
    return sorted(body["messages"][-1]["content"] for body in fake.requests)


def golden(name, text):
    """``UPDATE_GOLDEN=1 pytest tests/unit/test_pytest_plugin.py`` rewrites the files."""
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    return (GOLDEN / name).read_text(encoding="utf-8")


def text_of(result, fake):
    """What was printed, without what differs from run to run."""
    text = "\n".join(result.outlines).replace(fake.url, "URL")
    text = re.sub(r"^(=+|_+) (.*?)(?: in [\d.]+s)? [=_]+$", lambda m: f"{m[1][:3]} {m[2]} {m[1][:3]}", text, flags=re.M)
    return text[text.index("collected") :] + "\n"


# Right, wrong, error


def test_the_output_of_right_and_wrong_answers(run, fake, world):
    write_skill(world.path / "taxonomy", rows=three_rows())
    result = run("--rft-min-accuracy=0.7")
    result.assert_outcomes(passed=2, failed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert text_of(result, fake) == golden("pytest_wrong.txt", text_of(result, fake))
    assert "rft: " + fake.url + ", test split, greedy" in result.outlines


def test_a_grader_error_is_an_error_of_pytest(run, fake, world):
    rows = three_rows()
    rows[2]["divisor"] = 0
    write_skill(world.path / "taxonomy", grader=RAISES, rows=rows)
    result = run("-rA")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    assert text_of(result, fake) == golden("pytest_error.txt", text_of(result, fake))


def test_errors_alone_do_not_pass(run, world):
    write_skill(world.path / "taxonomy", grader=RAISES, rows=[row("a", "YES", split="test", divisor=0)])
    result = run()
    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_wrong_answer_to_a_task_whose_reference_is_refused_is_an_error(run, world):
    rows = [row("a", "PERHAPS", split="test"), row("b", "NO", split="test")]
    regex = {"type": "regex", "name": "r", "input": "{{sample.output_text}}", "pattern": "NO"}
    write_skill(world.path / "taxonomy", grader=regex, rows=rows)
    result = run()
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["*tasks.jsonl:1: the grader does not accept the task's own reference: *"])


def test_one_line_a_failure(run, world):
    write_skill(world.path / "taxonomy", rows=three_rows())
    lines = run("--tb=line").outlines
    assert lines.count(f"{LEAF}:2: expected NO, answered YES") == 1 and not any("prompt " in line for line in lines)


def test_long_texts_are_cut_unless_asked_for(run, world):
    write_skill(world.path / "taxonomy", rows=[row("word " * 400, "NO", split="test")])
    cut, whole = run().stdout.str(), run("-vv").stdout.str()
    assert "… (1400 more characters: -vv)" in cut and cut.count("word") == 120
    assert whole.count("word") == 400 and "system: Answer YES, NO or MAYBE." in whole


def test_control_characters_of_a_model_do_not_reach_the_terminal(run, fake, world):
    fake.says = lambda body: "\x1b[2J\u202egone"
    write_skill(world.path / "taxonomy", rows=[row("a", "YES", split="test")])
    result = run()
    assert "\x1b" not in "\n".join(result.outlines)
    result.stdout.fnmatch_lines(["  answer     ⟨U+001B⟩[[]2J⟨U+202E⟩gone"])


def test_junit(run, world):
    rows = three_rows()
    rows[2]["divisor"] = 0
    write_skill(world.path / "taxonomy", grader=RAISES, rows=rows)
    run("--junitxml=out.xml")
    cases = list(ElementTree.parse(world.path / "out.xml").iter("testcase"))
    assert [case.get("name") for case in cases] == ["1[on_off]", "2[on_off]", "3[rain]"]
    assert {case.get("classname") for case in cases} == {LEAF.replace("/", ".")}
    kinds = [[child.tag for child in case if child.tag != "properties"] for case in cases]
    assert kinds == [[], ["failure"], ["error"]]
    assert cases[1].find("failure").get("message") == "expected NO, answered YES"
    message = 'failed on setup with "not graded: ZeroDivisionError: float division by zero"'
    assert cases[2].find("error").get("message").startswith(message[:40])
    given = [{p.get("name"): p.get("value") for p in case.iter("property")} for case in cases]
    assert [g["rft_outcome"] for g in given] == ["right", "wrong", "error"]
    assert [g.get("rft_score") for g in given] == ["1.0", "0.0", None]
    common = {"rft_skill": "area/skill", "rft_group": "on/off", "rft_split": "test", "rft_completion": "YES"}
    assert common.items() <= given[1].items() and given[1]["rft_line"] == "2" and len(given[1]["rft_task"]) == 64


# What is asked


def test_one_batch_of_the_selected_tasks_and_nothing_twice(run, fake, world):
    write_skill(world.path / "taxonomy")
    # Lines 9 and 10 of ten are tests: their answers are NO, YES, MAYBE, NO, ...
    run("-q", f"{LEAF}::10", where=f"{LEAF}::9").assert_outcomes(passed=1, failed=1)
    assert prompts(fake) == ["Question 8?", "Question 9?"]
    run("-q").assert_outcomes(passed=20, failed=40)
    assert len(fake.requests) == len(set(prompts(fake))) == 60
    again = run()
    assert len(fake.requests) == 60
    again.stdout.fnmatch_lines(["rft: 60 answers, all cached"])
    run("--rft-fresh", "-q")
    assert len(fake.requests) == 120


def test_the_cost_is_said_before(run, world):
    write_skill(world.path / "taxonomy", rows=three_rows())
    result = run("--rft-demonstrations=6")
    # 3 prompts with the instruction and 6 seeds, four characters a token; 64 tokens is the default of max_tokens.
    result.stdout.fnmatch_lines(
        ["rft: 3 answers, 0 of them cached; the others: about * tokens to read, at most 192 to write"]
    )


def test_demonstrations_go_before_the_prompt_and_the_answer_is_greedy(run, fake, world):
    write_skill(world.path / "taxonomy", rows=three_rows()[:1])
    run("--rft-demonstrations=2")
    (body,) = fake.requests
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert body["temperature"] == 0.0 and body["max_tokens"] == 64


@pytest.mark.parametrize("rate, outcome", [("0.5", "passed"), ("0.75", "failed")])
def test_samples_and_the_share_of_them_that_must_be_right(run, fake, world, rate, outcome):
    answers = iter(["YES", "NO", "YES", "NO"])
    fake.says = lambda body: next(answers)
    write_skill(world.path / "taxonomy", rows=three_rows()[:1])
    result = run("--rft-samples=4", f"--rft-pass-rate={rate}")
    assert result.parseoutcomes() == {outcome: 1}
    assert [body["temperature"] for body in fake.requests] == [1.0] * 4
    assert len({body["seed"] for body in fake.requests}) == 4
    if outcome == "failed":
        result.stdout.fnmatch_lines(["*tasks.jsonl:1: 2 of 4 right; expected YES, answered NO"])


def test_split_and_limit(run, fake, world):
    write_skill(world.path / "taxonomy")
    run("--rft-split=val", "--rft-limit=5")
    some = prompts(fake)
    assert len(some) == 5 and {json.loads(p.split()[1][:-1]) % 10 for p in some} == {7}
    write_skill(world.path / "taxonomy", rows=plain_rows()[::-1])
    run("--rft-split=val", "--rft-limit=5", "--rft-fresh")
    assert prompts(fake) == sorted(some * 2), "the same tasks, whatever their order in the file"


def test_a_skill_without_tasks_in_the_split_is_skipped_and_says_so(run, world):
    write_skill(world.path / "taxonomy", rows=three_rows())
    result = run("--rft-split=val", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * no val tasks"])
    wanting = run("--rft-split=val", "--rft-min-accuracy=0.5")
    wanting.stdout.fnmatch_lines(["*tasks.jsonl: no val tasks to reach an accuracy with"])
    assert wanting.ret == pytest.ExitCode.INTERRUPTED


# Selection


def test_selection_by_line_keyword_and_mark(run, world):
    write_skill(world.path / "taxonomy", rows=three_rows())
    write_skill(world.path / "taxonomy", "area/other", rows=three_rows())
    (world.path / "taxonomy" / "rft.toml").write_text('[skills."area/other"]\ntier = "target"\n', encoding="utf-8")

    def collected(*arguments, where="taxonomy"):
        lines = run("--collect-only", "-q", *arguments, where=where).outlines
        return [line.removeprefix("taxonomy/compositional_skills/area/") for line in lines if "::" in line]

    everything = [f"{s}/tasks.jsonl::{n}" for s in ("other", "skill") for n in ("1[on_off]", "2[on_off]", "3[rain]")]
    assert collected() == everything
    assert collected(where=f"{LEAF}::2") == ["skill/tasks.jsonl::2[on_off]"]
    assert collected(where=str(Path(LEAF).parent)) == everything[3:]
    assert collected("-k", "rain") == [everything[2], everything[5]]
    assert collected("-k", "area/other and on/off") == everything[:2]
    assert collected("-m", 'rft(tier="target")') == everything[:3]
    assert collected("-m", "not rft") == []
    assert collected("-m", "rft_accuracy", "--rft-min-accuracy=0.5") == [
        f"{s}/tasks.jsonl::accuracy[0.5]" for s in ("other", "skill")
    ]


def test_collecting_alone_asks_nobody(run, fake, world):
    write_skill(world.path / "taxonomy", rows=three_rows())
    run("--collect-only").stdout.fnmatch_lines(["*3 tests collected*"])
    assert fake.requests == []


# Accuracy


def test_the_accuracy_alone_asks_all_tasks_of_the_skill(run, fake, world):
    write_skill(world.path / "taxonomy")
    result = run("-m", "rft_accuracy", "--rft-min-accuracy=area/skill=0.5")
    assert result.parseoutcomes() == {"failed": 1, "deselected": 60} and len(fake.requests) == 60
    line = "accuracy 33.3 % [[]22.7, 45.9], 20 of 60, at least 50.0 % asked for"
    result.stdout.fnmatch_lines([f"{LEAF}:1: {line}"])
    assert run("-m", "rft_accuracy", "--rft-min-accuracy=0.9", "--rft-min-accuracy=area/skill=0.33").ret == 0


@pytest.mark.parametrize("least, outcome", [("0.3", "passed"), ("0.5", "errors"), ("0.7", "failed")])
def test_errors_decide_about_an_accuracy_only_if_they_could_tip_it(run, world, least, outcome):
    rows = three_rows()
    rows[2]["divisor"] = 0
    write_skill(world.path / "taxonomy", grader=RAISES, rows=rows)  # right, wrong, error: from 1/3 to 2/3
    result = run("-m", "rft_accuracy", f"--rft-min-accuracy={least}")
    assert result.parseoutcomes() == {outcome: 1, "deselected": 3}


# Bad input


BROKEN = {
    "grader.json": ("{", "grader.json:1: not valid JSON"),
    "type": ('{"type": "nonsense"}', "grader.json:1: "),
    "tasks.jsonl": ("", "tasks.jsonl:2: not valid JSON"),
}


@pytest.mark.parametrize("broken", [*BROKEN, "no grader", "no tasks", "rft.toml", "rows"])
def test_a_broken_skill_is_a_collection_error_with_file_and_line(run, fake, world, broken):
    taxonomy = world.path / "taxonomy"
    write_skill(taxonomy, "area/good", rows=three_rows())
    leaf = write_skill(taxonomy, rows=three_rows())
    expected = {
        "no grader": "grader.json: missing file",
        "no tasks": "tasks.jsonl: missing file",
        "rft.toml": "rft.toml: unknown table [[]nonsense]",
        "rows": "tasks.jsonl:3: no messages",
    }.get(broken) or BROKEN[broken][1]
    if broken in ("grader.json", "type"):
        (leaf / "grader.json").write_text(BROKEN[broken][0], encoding="utf-8")
    elif broken in ("tasks.jsonl", "rows"):
        lines = [json.dumps(three_rows()[0]), "{" if broken == "tasks.jsonl" else "", '{"reference": "x"}']
        (leaf / "tasks.jsonl").write_text("\n".join(lines), encoding="utf-8")
    elif broken == "rft.toml":
        (taxonomy / "rft.toml").write_text("[nonsense]\n", encoding="utf-8")
    else:
        (leaf / {"no grader": "grader.json", "no tasks": "tasks.jsonl"}[broken]).unlink()
    result = run()
    assert result.ret == pytest.ExitCode.INTERRUPTED and fake.requests == []
    result.stdout.fnmatch_lines([f"*{expected}*"])
    assert "INTERNALERROR" not in result.stdout.str() and "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--rft-model=nowhere"], "*--rft-model 'nowhere': no such model (a model directory, a run in *"),
        (["--rft-model="], "*--rft-model '': no such model*"),
        (["--rft-model=embedded", "--rft-limit=0"], "*--rft-limit 0: must be at least 1"),
        (["--rft-model=embedded", "--rft-samples=0"], "*--rft-samples 0: must be at least 1"),
        (["--rft-model=embedded", "--rft-pass-rate=0"], "*--rft-pass-rate 0.0: must be above 0, at most 1"),
        (["--rft-model=embedded", "--rft-endpoint-model=m"], "*--rft-endpoint-model: --rft-model is no URL*"),
        (["--rft-model=embedded", "--rft-min-accuracy=a=80%"], "*--rft-min-accuracy 'a=80%': write area/skill=0.8*"),
        (["--rft-model=embedded", "--rft-min-accuracy=nan"], "*--rft-min-accuracy 'nan': write area/skill=0.8*"),
        (
            ["--rft-model=embedded", "--collect-only", "--rft-min-accuracy=no/such=1"],
            "*no skill 'no/such' (one of area/*",
        ),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_line(world, arguments, expected):
    write_skill(world.path / "taxonomy", rows=three_rows())
    result = inside(world, "taxonomy", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {expected.lstrip('*')}" if expected.startswith("*-") else expected])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("model", ["http://127.0.0.1:9/v1", "not-a-model"])
def test_a_model_that_is_not_there_is_a_collection_error(world, model):
    write_skill(world.path / "taxonomy", rows=three_rows())
    (world.path / "not-a-model").mkdir()
    result = world.runpytest_subprocess(*PLUGIN, "taxonomy", f"--rft-model={model}")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    said = "*no model answers there: *" if model.startswith("http") else "*not a Hugging Face model: *"
    result.stdout.fnmatch_lines([said])
    assert "INTERNALERROR" not in result.stdout.str() and "Traceback" not in result.stdout.str()


def test_a_server_that_refuses_makes_every_test_an_error(run, fake, world):
    fake.first = [failure(400, "no such model") for _ in range(3)]
    write_skill(world.path / "taxonomy", rows=three_rows())
    result = run()
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines([f"ERROR {LEAF}::1[[]on_off] - *sampling failed*no such model*"])


# Other people's tests


def test_without_a_model_nothing_is_collected_imported_or_hooked(world):
    """Nor anything of a project whose files have the same names."""
    write_skill(world.path / "taxonomy", rows=three_rows())
    (world.path / "tasks.jsonl").write_text("not ours", encoding="utf-8")
    world.makeconftest(
        """
        import sys

        def pytest_sessionfinish(session):
            ours = sorted(name for name in sys.modules if name.split(".")[0] == "rft_ilab")
            print("ours:", ours, session.config.pluginmanager.has_plugin("rft-ilab-session"))
        """
    )
    result = world.runpytest_subprocess(*PLUGIN, "-s", "--strict-markers", "-W", "error")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["collected 0 items", "ours: ['rft_ilab', 'rft_ilab.pytest_plugin'] False"])
    assert "rft" not in "".join(
        line for line in result.outlines if not line.startswith(("ours:", "rootdir:", "plugins:"))
    )


def test_with_a_model_files_of_the_same_names_elsewhere_are_left_alone(run, fake, world):
    for name in ("tasks.jsonl", "grader.json"):
        (world.path / name).write_text("not ours", encoding="utf-8")
    world.makepyfile("def test_own(): pass")
    result = run(where=None)
    result.assert_outcomes(passed=1)
    assert "use cases" not in result.stdout.str() and fake.requests == []


def test_what_other_projects_pay(world):
    """The plugin without a model: two modules and less than 10 ms (the least of five, measured by the interpreter)."""
    program = (
        "import sys, time, pytest; before = set(sys.modules); started = time.perf_counter()\n"
        "import rft_ilab.pytest_plugin\n"
        "print(time.perf_counter() - started, *sorted(set(sys.modules) - before))"
    )
    said = [subprocess.check_output([sys.executable, "-c", program], text=True).split() for _ in range(5)]
    assert all(modules == ["rft_ilab", "rft_ilab.pytest_plugin"] for _, *modules in said)
    assert min(float(seconds) for seconds, *_ in said) < 0.010


def test_python_in_a_leaf_is_never_imported(run, world):
    leaf = write_skill(world.path / "taxonomy", rows=three_rows())
    for name in ("__init__.py", "generator.py", "test_evil.py", "evil_test.py", "deeper/test_evil.py"):
        path = leaf / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(world.path / 'evil')!r}, 'w')\ndef test(): pass\n", encoding="utf-8")
    result = run("--doctest-modules")
    result.assert_outcomes(passed=2, failed=1)
    assert not (world.path / "evil").exists()


def test_a_time_limit_of_tests_is_none_of_the_batch(run, fake, world):
    def slowly(body):
        time.sleep(0.5)
        return "YES"

    fake.says = slowly
    write_skill(world.path / "taxonomy", rows=three_rows())
    run("-p", "pytest_timeout", "--timeout=1").assert_outcomes(passed=2, failed=1)


# Several processes


def in_processes(world, fake, *arguments, count):
    command = [sys.executable, "-m", "pytest", *PLUGIN, f"--rft-model={fake.url}", "--rft-endpoint-model=m", "taxonomy"]
    running = [
        subprocess.Popen([*command, *arguments], cwd=world.path, stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(count)
    ]
    return [process.communicate(timeout=120)[0] for process in running]


def test_two_processes_ask_for_a_skill_once(world, fake, monkeypatch):
    write_skill(world.path / "taxonomy")
    for said in in_processes(world, fake, "-q", count=2):
        assert "40 failed, 20 passed" in said
    assert len(fake.requests) == len(set(prompts(fake))) == 60


@pytest.mark.parametrize("fresh", [[], ["--rft-fresh"]])
def test_xdist(world, fake, fresh):
    pytest.importorskip("xdist")
    write_skill(world.path / "taxonomy")
    write_skill(world.path / "taxonomy", "area/other", rows=three_rows())
    (said,) = in_processes(world, fake, "-p", "xdist", "-n", "2", "--rft-min-accuracy=0.5", *fresh, count=1)
    assert "42 failed, 23 passed" in said and len(fake.requests) == 63
    assert re.search(r"^area/other +2 +1 +0 +66.7 %", said, re.M) and re.search(r"^area/skill +20 +40 +0 ", said, re.M)


# Local models


@pytest.mark.slow
def test_a_local_model_is_loaded_only_where_something_is_missing(world):
    from tests.tiny_model import make_tiny_model

    tiny = make_tiny_model(world.path / "data" / "instructlab" / "rft" / "runs" / "mine" / "model")
    write_skill(world.path / "taxonomy", rows=three_rows())
    arguments = (*PLUGIN, "--rft-model=mine", "taxonomy")
    result = world.runpytest_subprocess(*arguments)
    result.stdout.fnmatch_lines(["rft: 3 answers, 0 of them cached; the others: under a minute"])
    assert sum(result.parseoutcomes().values()) == 3 and "errors" not in result.parseoutcomes()
    weights = tiny / "model.safetensors"
    whole = weights.read_bytes()
    world.makeconftest("import rft_ilab.policy.local.model as m\nm.load_model = None\n")
    again = world.runpytest_subprocess(*arguments)
    again.stdout.fnmatch_lines(["rft: 3 answers, all cached"])
    assert again.parseoutcomes() == result.parseoutcomes()
    # Other bytes are another model, which cannot be loaded: errors, with one line each.
    (world.path / "conftest.py").unlink()
    weights.write_bytes(whole[: len(whole) // 2])
    broken = world.runpytest_subprocess(*arguments)
    assert broken.parseoutcomes() == {"errors": 3}
    broken.stdout.fnmatch_lines(
        ["rft: the cost is not known: *mine/model: cannot be loaded: *", "*jsonl:1: *mine/model: cannot be loaded: *"]
    )


# The documentation


def documented():
    text = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.S)
    return [line for block in blocks for line in block.splitlines()]


def test_every_option_is_documented(world):
    help = "\n".join(inside(world, "--help").outlines)
    options = set(re.findall(r"--rft-[a-z-]+", help))
    text = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    assert len(options) == 9 and options == set(re.findall(r"--rft-[a-z-]+", text))


@pytest.mark.parametrize("command", documented())
def test_every_command_of_the_documentation_works(run, fake, world, command):
    """On the shipped taxonomy, with the server in place of the model and a few tasks."""
    program, *arguments = shlex.split(command)
    assert program == "pytest" and "--rft-model=embedded" in arguments
    arguments.remove("--rft-model=embedded")
    for name in ("taxonomy", "graders"):
        shutil.copytree(ROOT / name, world.path / name)
    limit = [] if ".jsonl::" in command or "-k" in arguments else ["--rft-limit=2"]
    if "-n" in arguments:
        pytest.importorskip("xdist")
        model = (f"--rft-model={fake.url}", "--rft-endpoint-model=m")
        result = world.runpytest_subprocess(*PLUGIN, "-p", "xdist", *model, *arguments, *limit)
    else:
        result = run(*arguments, *limit, where=None)
    assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    counted = result.parseoutcomes()
    assert not counted.get("errors") and sum(counted.values()) >= 1, "everything answers YES, which is wrong"
    assert bool(fake.requests) == ("--collect-only" not in command)


def test_the_failure_in_the_documentation_is_the_real_one():
    text = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n___+ area.*?___\n(.*?)```", text, re.S)
    assert block in (GOLDEN / "pytest_wrong.txt").read_text(encoding="utf-8")
