"""The import hook and the options that it adds, on commands made for the test."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
import textwrap
import types

import click
import pytest
from click.testing import CliRunner

from rft_ilab.cli import extend
from rft_ilab.host import hook
from rft_ilab.pipeline import workers  # noqa: F401 - the tests replace its package by one that is none

MODULE = "rft_test_command"
SOURCE = """
    import click

    @click.command()
    @click.option("--number", type=int, default=3)
    @click.pass_context
    def go(ctx, number):
        "Doc of go."
        click.echo(f"original {number} {sorted(ctx.params)}")
"""


@pytest.fixture(autouse=True)
def clean_hook(monkeypatch):
    monkeypatch.setattr(hook, "failures", {})
    monkeypatch.setattr(hook, "EXTENDED", {MODULE: "go"})
    monkeypatch.delenv(hook.DEBUG_VARIABLE, raising=False)
    before = list(sys.meta_path)
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, hook.CommandFinder)]
    yield
    sys.meta_path[:] = before
    sys.modules.pop(MODULE, None)


@pytest.fixture
def command_module(tmp_path, monkeypatch):
    (tmp_path / f"{MODULE}.py").write_text(textwrap.dedent(SOURCE), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return MODULE


def stage(ctx, original, ours):
    click.echo(f"ours {ours}")
    return original()


@pytest.fixture
def extension(monkeypatch):
    options = (click.Option(["--rft"], is_flag=True), click.Option(["--rft-target"], multiple=True))
    monkeypatch.setattr(extend, "EXTENSIONS", {MODULE: (stage, options)})


def test_options_are_appended_and_removed_again(command_module, extension):
    hook.install()
    module = importlib.import_module(command_module)
    result = CliRunner().invoke(module.go, ["--number", "5", "--rft", "--rft-target", "a"])
    assert result.output.splitlines() == ["ours {'rft': True, 'rft_target': ('a',)}", "original 5 ['number']"]
    assert "--rft-target" in CliRunner().invoke(module.go, ["--help"]).output
    assert hook.status() == "available"


def test_the_module_looks_like_any_other(command_module, extension):
    hook.install()
    module = importlib.import_module(command_module)
    assert type(module.__spec__.loader) is importlib.machinery.SourceFileLoader
    assert "original" in inspect.getsource(module)
    assert importlib.reload(module).go.params[-1].opts == ["--rft-target"]


def test_a_command_that_is_already_imported_is_extended_too(command_module, extension):
    module = importlib.import_module(command_module)
    assert [p.opts for p in module.go.params] == [["--number"]]
    hook.install()
    assert ["--rft"] in [p.opts for p in module.go.params]


def test_installing_twice_is_installing_once(command_module, extension):
    hook.install()
    hook.install()
    assert sum(isinstance(finder, hook.CommandFinder) for finder in sys.meta_path) == 1
    importlib.import_module(command_module)


def test_other_imports_are_left_alone():
    assert hook.CommandFinder().find_spec("json") is None
    assert hook.CommandFinder().find_spec("instructlab.cli.model.serve") is None


def test_a_missing_module_stays_missing(extension):
    hook.install()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(MODULE)


@pytest.mark.parametrize("argv, says", [(["ilab", "train", "--rft"], "ilab rft run"), (["ilab", "train"], "")])
def test_a_surprise_leaves_the_command_as_it_was(command_module, monkeypatch, capsys, argv, says):
    def surprise(module, command):
        raise RuntimeError("another ilab")

    monkeypatch.setattr(extend, "extend", surprise)
    monkeypatch.setattr(sys, "argv", argv)
    hook.install()
    module = importlib.import_module(command_module)
    assert CliRunner().invoke(module.go, []).output == "original 3 ['number']\n"
    error = capsys.readouterr().err
    assert (says in error) if says else (error == "")
    assert hook.status() == f"not available: {MODULE}: RuntimeError: another ilab"


def test_the_debug_switch_prints_the_traceback(command_module, monkeypatch, capsys):
    monkeypatch.setattr(extend, "EXTENSIONS", {})
    monkeypatch.setenv(hook.DEBUG_VARIABLE, "1")
    hook.install()
    importlib.import_module(command_module)
    assert "Traceback" in capsys.readouterr().err


def test_a_loader_that_cannot_be_wrapped_is_left_alone(command_module, extension):
    class Rigid:
        __slots__ = ()

        def create_module(self, spec):
            return None

        def exec_module(self, module):
            module.go = None

    class Finder:
        def find_spec(self, name, path=None, target=None):
            return importlib.machinery.ModuleSpec(name, Rigid()) if name == MODULE else None

    sys.meta_path.insert(0, Finder())
    hook.install()
    assert importlib.import_module(MODULE).go is None
    assert MODULE in hook.failures


def test_an_option_that_ilab_has_itself_is_not_added_twice(monkeypatch):
    command = click.Command("train", params=[click.Option(["--rft"])], callback=lambda: None)
    with pytest.raises(RuntimeError, match="--rft"):
        extend.extend("instructlab.cli.model.train", command)


def test_status_names_the_kill_switch(monkeypatch):
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "__all__")
    assert hook.status() == "not available: PYDANTIC_DISABLE_PLUGINS=__all__"


def test_pydantic_works_with_the_plugin():
    program = """if True:
        import sys
        from pydantic import BaseModel, ValidationError
        class M(BaseModel):
            x: int
        assert M(x="3").x == 3 and M.model_validate_json('{"x": 4}').x == 4
        try:
            M(x="no")
        except ValidationError:
            pass
        else:
            raise SystemExit("not validated")
        print("rft_ilab.host.hook" in sys.modules, "click" in sys.modules)
    """
    for disabled, loaded in [("", "True"), ("__all__", "False")]:
        environment = {**os.environ, "PYDANTIC_DISABLE_PLUGINS": disabled}
        result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert result.stdout.split() == [loaded, "False"], result.stderr


# The stages, with a pipeline that records what it is asked.


class FakePipeline(types.ModuleType):
    def __init__(self, outcome: str) -> None:
        super().__init__("rft_ilab.pipeline")
        self.calls: list[tuple[str, object]] = []
        self.outcome = outcome
        self.Request = types.SimpleNamespace

    def train(self, request, console):
        self.calls.append(("train", request))

    def regress(self, request, console):
        self.calls.append(("regress", request))
        return {"outcome": self.outcome}

    def verify_generated(self, request, dataset, console):
        self.calls.append(("verify", dataset))
        return dataset / "verified.jsonl"


@pytest.fixture
def pipeline(monkeypatch, request):
    fake = FakePipeline(getattr(request, "param", "PASS"))
    monkeypatch.setitem(sys.modules, "rft_ilab.pipeline", fake)
    monkeypatch.setattr("rft_ilab.pipeline", fake, raising=False)
    monkeypatch.setattr("rft_ilab.cli.outcome.write_report", lambda run: None)
    return fake


@pytest.fixture
def taxonomy(tmp_path, monkeypatch):
    monkeypatch.setattr(extend, "_check_skills", lambda *arguments: None)
    (tmp_path / "taxonomy").mkdir()
    return tmp_path / "taxonomy"


def ilab_config(taxonomy):
    return types.SimpleNamespace(config=types.SimpleNamespace(generate=types.SimpleNamespace(taxonomy_path=taxonomy)))


def train_command(body) -> click.Command:
    @click.command()
    @click.option("--pipeline", default="full")
    @click.option("--strategy")
    @click.option("--training-journal")
    @click.option("--ckpt-output-dir")
    @click.pass_context
    def train(ctx, **parameters):
        assert set(ctx.params) == set(parameters)
        body(parameters)

    extend.extend("instructlab.cli.model.train", train)
    return train


def checkpoint(output, number):
    directory = output / "hf_format" / f"samples_{number}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text("{}", encoding="utf-8")
    return directory


@pytest.mark.parametrize("pipeline, code", [("PASS", 0), ("FAIL", 1), ("INCONCLUSIVE", 2)], indirect=["pipeline"])
def test_train_then_rl_on_the_new_checkpoint_then_gate(tmp_path, taxonomy, pipeline, code):
    stale = checkpoint(tmp_path, 99)
    os.utime(stale / "config.json", (1, 1))

    def body(parameters):
        checkpoint(tmp_path, 0)
        checkpoint(tmp_path, 16)
        checkpoint(tmp_path, 8)

    arguments = ["--ckpt-output-dir", str(tmp_path), "--rft", "--rft-target", "a/b", "--rft-run", str(tmp_path / "r")]
    arguments += ["--rft-report-to", "none"]
    result = CliRunner().invoke(train_command(body), arguments, obj=ilab_config(taxonomy))
    assert result.exit_code == code, result.output
    assert [name for name, _ in pipeline.calls] == ["train", "regress"]
    for _, request in pipeline.calls:
        assert request.model == tmp_path / "hf_format" / "samples_16"
        assert (request.targets, request.run, request.taxonomy) == (("a/b",), tmp_path / "r", taxonomy)
    assert pipeline.calls[0][1].settings.tracking.report_to == "none"


def test_open_instruct_trains_where_the_environment_says(tmp_path, taxonomy, pipeline, monkeypatch):
    for name, value in {
        "RFT_OPEN_INSTRUCT": "/oi", "RFT_OPEN_INSTRUCT_PYTHON": "/oi/python", "RAY_ADDRESS": "head:6379",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    arguments = ["--ckpt-output-dir", str(tmp_path), "--rft", "--rft-engine", "open-instruct", "--rft-gpus", "8"]
    command = train_command(lambda parameters: checkpoint(tmp_path, 8))
    result = CliRunner().invoke(command, [*arguments, "--rft-nodes", "2"], obj=ilab_config(taxonomy))
    assert result.exit_code == 0, result.output
    for _, request in pipeline.calls:
        site = request.site
        assert (str(site.checkout), str(site.python), site.ray_address) == ("/oi", "/oi/python", "head:6379")
        assert (site.gpus, site.nodes, site.ray_job) == (8, 2, False)


def test_a_missing_open_instruct_is_found_before_the_training(tmp_path, monkeypatch):
    monkeypatch.delenv("RFT_OPEN_INSTRUCT", raising=False)
    ran: list[object] = []
    (tmp_path / "taxonomy").mkdir()
    arguments = ["--rft", "--rft-engine", "open-instruct"]
    result = CliRunner().invoke(train_command(ran.append), arguments, obj=ilab_config(tmp_path / "taxonomy"))
    assert result.exit_code == 2 and "where is Open-Instruct?" in result.output and ran == []


def train_in_phases(taxonomy, journal, text):
    def body(parameters):
        if text is not None:
            journal.write_text(text, encoding="utf-8")

    arguments = ["--strategy", "lab-multiphase", "--pipeline", "accelerated", "--rft"]
    arguments += ["--training-journal", str(journal)]
    return CliRunner().invoke(train_command(body), arguments, obj=ilab_config(taxonomy))


def test_multi_phase_training_names_its_result(tmp_path, taxonomy, pipeline):
    journal = tmp_path / "journalfile.yaml"
    result = train_in_phases(taxonomy, journal, "final_output: {checkpoint: /best, score: 1}\n")
    assert result.exit_code == 0, result.output
    assert str(pipeline.calls[0][1].model) == "/best"


@pytest.mark.parametrize(
    "text, says",
    [(None, "left no journal"), ("final_output:\n", "names no final_output"), ("a: [\n", "names no final_output")],
)
def test_a_journal_without_result_is_one_line(tmp_path, taxonomy, pipeline, text, says):
    result = train_in_phases(taxonomy, tmp_path / "journalfile.yaml", text)
    assert result.exit_code == 2 and says in result.output and result.output.count("\n") == 1
    assert pipeline.calls == []


def test_train_without_rft_is_as_ever(tmp_path, taxonomy, pipeline):
    seen = []
    assert CliRunner().invoke(train_command(seen.append), [], obj=ilab_config(taxonomy)).exit_code == 0
    assert len(seen) == 1 and pipeline.calls == []


def test_a_training_that_fails_is_not_followed_by_rl(tmp_path, taxonomy, pipeline):
    def body(parameters):
        raise click.exceptions.Exit(1)

    result = CliRunner().invoke(train_command(body), ["--rft"], obj=ilab_config(taxonomy))
    assert result.exit_code == 1 and pipeline.calls == []


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--rft", "--pipeline", "simple"], "--rft needs --pipeline full or accelerated"),
        (["--rft-target", "a"], "--rft-target needs --rft"),
        (["--rft-run", "a"], "--rft-run needs --rft"),
        (["--rft-report-to", "wandb"], "--rft-report-to needs --rft"),
        (["--rft-engine", "open-instruct"], "--rft-engine needs --rft"),
        (["--rft", "--rft-gpus", "8"], "--rft-gpus needs --rft-engine open-instruct"),
        (["--rft", "--rft-engine", "open-instruct", "--rft-ray-job"], "--ray-job needs --ray-address"),
        (["--rft", "--ckpt-output-dir", "/nowhere"], "left no new hf_format/samples_N checkpoint"),
    ],
)
def test_train_refusals_are_one_line(taxonomy, pipeline, arguments, says):
    result = CliRunner().invoke(train_command(lambda parameters: None), arguments, obj=ilab_config(taxonomy))
    assert result.exit_code == 2 and says in result.output
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1
    assert pipeline.calls == []


def test_a_bad_taxonomy_is_found_before_the_training(tmp_path):
    ran: list[object] = []
    result = CliRunner().invoke(train_command(ran.append), ["--rft"], obj=ilab_config(tmp_path / "absent"))
    assert result.exit_code == 2 and "no such taxonomy directory" in result.output and ran == []


def test_a_missing_tracker_is_found_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    ran: list[object] = []
    (tmp_path / "taxonomy").mkdir()
    arguments = ["--rft", "--rft-report-to", "wandb"]
    result = CliRunner().invoke(train_command(ran.append), arguments, obj=ilab_config(tmp_path / "taxonomy"))
    assert result.exit_code == 2 and ran == []
    assert result.output == "Error: --report-to wandb: wandb is not installed (pip install wandb)\n"


def generate_command(body) -> click.Command:
    @click.command()
    @click.option("--output-dir")
    @click.option("--taxonomy-path")
    @click.option("-dt", "--detached", is_flag=True)
    @click.pass_context
    def generate(ctx, **parameters):
        assert set(ctx.params) == set(parameters)
        body()

    extend.extend("instructlab.cli.data.generate", generate)
    return generate


def test_generate_then_verify_the_new_directory(tmp_path, taxonomy, pipeline):
    (tmp_path / "2030-01-01_000000").mkdir()
    new = tmp_path / "2026-01-02_030405"

    def body():
        new.mkdir()
        (tmp_path / "checkpoints").mkdir()

    arguments = ["--output-dir", str(tmp_path), "--taxonomy-path", str(taxonomy), "--verify"]
    result = CliRunner().invoke(generate_command(body), arguments)
    assert result.exit_code == 0, result.output
    assert pipeline.calls == [("verify", new)]
    assert result.output == f"{new / 'verified.jsonl'}\n"


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--verify", "-dt"], "--verify cannot be combined with --detached"),
        (["--verify-endpoint", "a"], "--verify-endpoint needs --verify"),
        (["--verify"], "left no new dated directory"),
    ],
)
def test_generate_refusals_are_one_line(tmp_path, taxonomy, pipeline, arguments, says):
    arguments += ["--output-dir", str(tmp_path), "--taxonomy-path", str(taxonomy)]
    result = CliRunner().invoke(generate_command(lambda: None), arguments)
    assert result.exit_code == 2 and says in result.output
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1
    assert pipeline.calls == []
