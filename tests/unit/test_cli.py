"""What the commands share: errors as exit codes, run directories, overridden settings, exit codes of a verdict."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rft_ilab import config
from rft_ilab.cli import options, outcome
from rft_ilab.cli.failures import RESUME, handled
from rft_ilab.disk import disk_error
from rft_ilab.errors import DiskError, GraderError, RunError
from rft_ilab.store import Cache, append_jsonl


def invoke(body):
    @click.command()
    @click.pass_context
    @handled
    def command(ctx):
        body(ctx)

    return CliRunner().invoke(command, [])


def raising(error):
    def body(ctx):
        raise error

    return body


@pytest.mark.parametrize(
    "error, line",
    [
        (GraderError("no such type 'x'", where="a/grader.json", line=3, fix="one of y"), "a/grader.json:3: no such"),
        (RunError("two\nlines"), "two lines"),
        (RunError("from a grader: \x1b[2J\u202e"), "from a grader: ⟨U+001B⟩[2J⟨U+202E⟩"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), "/runs/x: cannot be written: no space left"),
        (OSError(errno.ENOSPC, "No space left on device"), "cannot be written: no space left on the disk (make room"),
        (OSError("1024 requested and 512 written"), "cannot be written: no space left on the disk (make room"),
        (DiskError("too little", where="/x", fix="make room"), "/x: too little (make room)"),
        (PermissionError(errno.EACCES, "Permission denied", "/secret/x"), "/secret/x: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "/x: Read-only"),
        (MemoryError(), "out of memory (use a smaller model or shorter prompts)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory (use"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
                " to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "out of memory: you tried to allocate 4000000000000 bytes (use",
        ),
        (
            type("OutOfMemoryError", (RuntimeError,), {})(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a"
            ),
            "CUDA out of memory (use a smaller model or shorter prompts, or CUDA_VISIBLE_DEVICES= to",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), "/x: cannot be written: the disk quota is used up (make"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exit_code_2(error, line):
    result = invoke(raising(error))
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {line}") and result.output.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("bug"), KeyError("bug"), FileNotFoundError(2, "bug"), sqlite3.Error("bug")]
)
def test_a_bug_keeps_its_traceback(error, capsys):
    result = invoke(raising(error))
    assert result.exit_code == 2, "1 would read as FAIL"
    assert "Traceback" in capsys.readouterr().err + result.output


def test_a_full_disk_under_the_cache_is_one_line(tmp_path):
    def body(ctx):
        cache = Cache(tmp_path / "cache.db")
        cache._db.execute("PRAGMA max_page_count = 3")
        cache.put([("key", "x" * 100_000)])

    result = invoke(body)
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert result.output.startswith(f"Error: {tmp_path}/cache.db: cannot be written: no space left on the disk, ")
    assert re.search(r", [\d.]+ [kMG]B free \(make room there, then give the same command again", result.output)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_under_a_file_is_one_line(tmp_path):
    full = tmp_path / "full"
    full.symlink_to("/dev/full")  # a link, so that nothing could ever replace the device itself
    result = invoke(lambda ctx: append_jsonl(full, [{"a": 1}]))
    assert result.exit_code == 2 and result.output.count("\n") == 1 and "no space left" in result.output


def test_a_full_disk_under_safetensors_is_one_line():
    import safetensors

    full = safetensors.SafetensorError('Error while serializing: I/O error: "No space left on device (os error 28)"')
    assert invoke(raising(full)).output.startswith("Error: cannot be written: no space left")
    assert disk_error(safetensors.SafetensorError("header too large")) is None


def test_an_interruption_says_how_to_resume():
    def body(ctx):
        ctx.meta[RESUME] = "ilab rft run --run x"
        raise KeyboardInterrupt

    result = invoke(body)
    assert result.exit_code == 130
    assert result.output == "interrupted; resume with: ilab rft run --run x\n"
    assert invoke(raising(KeyboardInterrupt())).output == "interrupted\n"


def test_a_full_disk_says_how_to_resume():
    def body(ctx):
        ctx.meta[RESUME] = "ilab rft run --run x"
        raise DiskError("too little", where="/x")

    assert invoke(body).output == "Error: /x: too little; resume with: ilab rft run --run x\n"


def test_exit_codes_pass_through():
    assert invoke(lambda ctx: ctx.exit(1)).exit_code == 1


@pytest.mark.parametrize("verdict, code", [("PASS", 0), ("FAIL", 1), ("INCONCLUSIVE", 2)])
def test_the_verdict_is_the_exit_code(verdict, code, monkeypatch, tmp_path):
    monkeypatch.setattr(outcome, "write_report", lambda run: None)
    assert invoke(lambda ctx: outcome.conclude(ctx, tmp_path, {"outcome": verdict})).exit_code == code


def test_overridden_leaves_what_was_not_given():
    settings = options.overridden(config.Settings(), train={"seed": 3, "steps": None}, gate={"samples": 2})
    assert (settings.train.seed, settings.gate.samples) == (3, 2)
    assert settings.train.steps == config.TrainSettings().steps and settings.data == config.DataSettings()


def test_a_run_is_a_name_or_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert options.run_path("one") == tmp_path / "instructlab/rft/runs/one"
    assert options.run_path("a/one") == Path("a/one")
    assert options.run_path(".") == Path(".")
    with pytest.raises(RunError, match="must not be empty"):
        options.run_path(" ")


def test_the_latest_run_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(RunError, match="no run here yet"):
        options.existing_run(None)
    for age, name in enumerate(["new", "old"]):
        manifest = tmp_path / "instructlab/rft/runs" / name / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}", encoding="utf-8")
        os.utime(manifest, (1000 - age, 1000 - age))
    assert options.existing_run(None).name == "new"
    assert options.existing_run("old").name == "old"
    with pytest.raises(RunError, match="no such run"):
        options.existing_run("other")


def test_a_new_control_run_is_named_apart(monkeypatch):
    context = click.Context(click.Command("x"))
    monkeypatch.setattr(sys, "argv", ["ilab", "model", "rft", "--control", "format-only"])
    run = options.startable_run(context, None, "format-only")
    assert run.name.endswith("-control-format-only")
    assert context.meta[RESUME] == f"ilab model rft --control format-only --run {run.name}"
    assert options.startable_run(context, "mine", "format-only").name == "mine"


def test_a_new_run_is_resumed_by_its_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/ilab", "rft", "run", "--model", "a b"])
    ctx = click.Context(click.Command("run"))
    run = options.startable_run(ctx, None)
    assert ctx.meta[RESUME] == f"ilab rft run --model 'a b' --run {run.name}"
    options.startable_run(ctx, "given")
    assert ctx.meta[RESUME] == "ilab rft run --model 'a b'"


def test_processes_of_torchrun_do_not_each_make_up_a_run(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    ctx = click.Context(click.Command("rft"))
    with pytest.raises(RunError, match=r"under torchrun a run needs a name.* \(add --run NAME\)"):
        options.startable_run(ctx, None)
    assert options.startable_run(ctx, "two").name == "two"


def test_usage_errors_stay_clicks(capsys):
    result = invoke(raising(click.UsageError("no")))
    assert result.exit_code == 2 and "Usage:" in result.output


@pytest.mark.parametrize(
    "arguments, code, report_to",
    [
        ([], 0, "auto"),
        (["--report-to", "none"], 0, "none"),
        (["--report-to", "wandb", "--report-to", "mlflow"], 0, "wandb,mlflow"),
        (["--report-to", "wandb,tensorboard"], 0, "wandb,tensorboard"),
        (["--report-to", "tensorbord"], 2, None),
        (["--report-to", "none", "--report-to", "wandb"], 2, None),
    ],
)
@pytest.mark.parametrize("command", ["train", "run"])
def test_report_to(command, arguments, code, report_to, tmp_path, monkeypatch):
    import types

    from rft_ilab import pipeline
    from rft_ilab.cli import run, train

    asked = []
    monkeypatch.setattr(pipeline, "train", lambda request, console: asked.append(request))
    monkeypatch.setattr(pipeline, "run_all", lambda request, console: asked.append(request) or {"outcome": "PASS"})
    monkeypatch.setattr(outcome, "write_report", lambda run: None)
    host = types.SimpleNamespace(config=types.SimpleNamespace(generate=types.SimpleNamespace(taxonomy_path=tmp_path)))
    given = ["--taxonomy-path", str(tmp_path), "--run", str(tmp_path / "r"), *arguments]
    result = CliRunner().invoke({"train": train.rft, "run": run.run}[command], given, obj=host)
    assert result.exit_code == code, result.output
    assert [request.settings.tracking.report_to for request in asked] == ([report_to] if report_to else [])


@pytest.mark.parametrize(
    ("arguments", "code", "said", "batch"),
    [
        ([], 0, "", (None, "auto")),
        (["--until-decided"], 0, "", (32, "auto")),
        (["--until-decided", "--batch", "8"], 0, "", (8, "auto")),
        (["--until-decided", "anytime", "--batch", "1"], 0, "", (1, "anytime")),
        (["--until-decided", "sometime"], 2, "'sometime' is not one of", None),
        (["--batch", "8"], 2, "--batch goes with --until-decided", None),
        (["--until-decided", "--batch", "0"], 2, "0 is not in the range", None),
        (["--aa", "3", "--until-decided"], 2, "does not go with --until-decided", None),
        (["--aa", "3", "--junit", "x.xml"], 2, "--aa gives no verdict", None),
        (["--aa", "20"], 0, "1 of 20 verdicts claimed a difference: 5.0 % [0.9, 23.6]. Not shown", None),
        (["--aa", "21"], 1, "4 of 20 verdicts claimed a difference: 20.0 % [8.1, 41.6]. More often than", None),
    ],
)
def test_regress_early_and_against_itself(arguments, code, said, batch, tmp_path, monkeypatch):
    from rft_ilab import pipeline
    from rft_ilab.cli import regress
    from rft_ilab.regress.aa import summary

    asked = []

    def judged(request, candidate, batch, method, console):
        asked.append((batch, method))
        return {"outcome": "PASS"}

    def against_itself(request, model, repeats, console):
        flips = 1 if repeats == 20 else 4
        return summary([["a"]] * flips + [[]] * (20 - flips), 0.05)

    monkeypatch.setattr(pipeline, "regress", judged)
    monkeypatch.setattr(pipeline, "against_itself", against_itself)
    monkeypatch.setattr(outcome, "write_report", lambda run: None)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "manifest.json").write_text("{}")
    given = ["--taxonomy-path", str(tmp_path), "--run", str(tmp_path / "r"), *arguments]
    result = CliRunner().invoke(regress.regress, given)
    assert result.exit_code == code and said in result.output
    assert asked == ([batch] if code == 0 and "--aa" not in arguments else [])


LEFT = """
import sys
from pathlib import Path
import click
from rft_ilab.cli import outcome
from rft_ilab.cli.failures import handled
from rft_ilab.report import html
html.write_html = lambda report, path: None

@click.command()
@click.pass_context
@handled
def gate(ctx):
    outcome.conclude(ctx, Path({run!r}), {{"outcome": "PASS"}})

@click.command()
@handled
def other():
    click.echo("x")

(gate if sys.argv.pop() == "gate" else other)()
"""


@pytest.mark.parametrize(("command", "code"), [("gate", 0), ("other", 2)])
def test_a_reader_who_left_is_no_fail(command, code):
    """As in ``ilab model regress | grep -q PASS``."""
    program = LEFT.format(run=str(Path(__file__).resolve().parents[1] / "fixtures" / "run"))
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, command], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120
        )
    finally:
        os.close(write)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_listing_flips_to_a_reader_who_left_is_quiet():
    run = Path(__file__).resolve().parents[1] / "fixtures" / "run"
    program = f"from rft_ilab.cli.explain import explain; explain(['--run', {str(run)!r}, '--limit', '100'])"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert done.returncode == 0 and done.stderr == ""
