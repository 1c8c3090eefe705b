"""Around the block: one call of ``generate_data``, leaves, the shipped pipeline, ``--pipeline rft``, and the hook."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from datasets import Dataset
from instructlab import sdg

import rft_ilab.host.sdg as ours
from rft_ilab.cli import extend
from rft_ilab.errors import GraderError, HostError, SkillError
from rft_ilab.host import hook, pipelines
from rft_ilab.host.sdg import generation, leaves, ledger
from rft_ilab.host.sdg.options import Options
from tests.unit import taxonomies
from tests.unit.sdg_server import COLUMNS, DESCRIPTION, LEAF, Server, dataset, lines

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server():
    return Server()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


@pytest.fixture
def taxonomy(tmp_path):
    taxonomies.write_skill(tmp_path / "taxonomy")
    return tmp_path / "taxonomy"


@pytest.fixture
def directory(tmp_path):
    """A pipeline directory with the block."""
    path = tmp_path / "pipeline"
    path.mkdir()
    block = {"name": "verify", "type": "GraderFilterBlock", "config": dict(COLUMNS)}
    for name in pipelines.FILES:
        content = {"version": "1.0", "blocks": [] if name == "knowledge.yaml" else [block]}
        (path / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def given(directory, taxonomy, tmp_path):
    return {
        "pipeline": str(directory), "taxonomy": str(taxonomy), "output_dir": tmp_path / "dated", "model_name": "m",
        "checkpoint_dir": str(tmp_path / "checkpoints"),
    }  # fmt: skip


def test_blocks_know_the_generation_and_checkpoints_are_their_own(directory, taxonomy, tmp_path):
    seen = []

    def original(**changed):
        running = generation.current()
        seen.append((running.taxonomy, running.output, changed["checkpoint_dir"]))
        assert generation.taxonomy_of(Options(**COLUMNS), running) == taxonomy
        assert ledger.place("rft_ledger.jsonl", running) == tmp_path / "dated" / "rft_ledger.jsonl"
        return "done"

    def run(**more):
        return generation.run(original, given(directory, taxonomy, tmp_path) | more)

    assert run() == "done" and generation.current() is None
    run()
    run(model_name="other")
    file = directory / "freeform_skills.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    run()
    taxonomies.write_skill(taxonomy, grader={**taxonomies.LABEL_GRADER, "name": "another"})
    run(taxonomy=taxonomy / "compositional_skills" / "area" / "skill" / "qna.yaml")
    assert {(where, output) for where, output, _ in seen} == {(taxonomy, tmp_path / "dated")}
    names = [Path(path) for *_, path in seen]
    assert names[0] == names[1] and len(set(names)) == 4
    assert all(path.parent == tmp_path / "checkpoints" and path.name.startswith("rft-") for path in names)


@pytest.mark.parametrize("pipeline", ["simple", "full", None])
def test_other_pipelines_are_left_alone(taxonomy, tmp_path, pipeline):
    def original():
        assert generation.current() is None
        return "done"

    assert generation.run(original, given(None, taxonomy, tmp_path) | {"pipeline": pipeline}) == "done"


@pytest.mark.parametrize(
    "text, says",
    [
        ("blocks: [", "cannot be read: "),
        ("blocks: [{type: GraderFilterBlock, name: v}]", "the block 'v' has no config"),
        ("blocks: [{type: GraderFilterBlock, name: v, config: {answer: response}}]", ".*'v': unknown key 'answer'"),
    ],
)
def test_a_bad_pipeline_is_said_before_the_generation(directory, taxonomy, tmp_path, text, says):
    (directory / "grounded_skills.yaml").write_text(text, encoding="utf-8")
    with pytest.raises((HostError, sdg.BlockConfigParserError), match=rf"grounded_skills\.yaml: {says}") as caught:
        generation.run(lambda **changed: pytest.fail("began"), given(directory, taxonomy, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_broken_skill_is_said_before_the_generation(directory, taxonomy, tmp_path):
    grader = taxonomy / "compositional_skills" / "area" / "skill" / "grader.json"
    grader.write_text('{"type": "label"}', encoding="utf-8")
    with pytest.raises(GraderError, match=r"grader\.json:1: "):
        generation.run(lambda **changed: pytest.fail("began"), given(directory, taxonomy, tmp_path))
    grader.unlink()
    with pytest.raises(SkillError, match="missing file"):
        generation.run(lambda **changed: pytest.fail("began"), given(directory, taxonomy, tmp_path))


def test_the_whole_yield_is_told_once_at_the_end(directory, taxonomy, tmp_path, server, caplog):
    def original(**changed):
        ctx = sdg.PipelineContext(server.client(), model_id="m", batch_size=1, batch_num_workers=2)
        flow = sdg.Pipeline.from_file(ctx, str(directory / "freeform_skills.yaml"))
        flow.generate(dataset(("Is it so", "NO"), ("Is it now", "NO")))
        assert not caplog.records
        raise RuntimeError("whatever ends it")

    with pytest.raises(RuntimeError):
        generation.run(original, given(directory, taxonomy, tmp_path))
    (warning,) = [r.getMessage() for r in caplog.records if r.name == generation.log.name]
    assert "none of 2 rows was verified (2 no_agreement)" in warning
    assert len(lines(tmp_path / "dated" / "rft_ledger.jsonl")) == 2


def test_no_yield_at_all_is_an_error_and_the_ledger_stays(directory, taxonomy, tmp_path, server):
    def original(**changed):
        ctx = sdg.PipelineContext(server.client(), model_id="m", batch_size=1, batch_num_workers=2)
        flow = sdg.Pipeline.from_file(ctx, str(directory / "freeform_skills.yaml"))
        flow.generate(dataset(("Is it so", "NO"), ("Is it now", "NO")))

    with pytest.raises(HostError, match=r"rft_ledger\.jsonl: no row of any skill .* was verified"):
        generation.run(original, given(directory, taxonomy, tmp_path))
    assert len(lines(tmp_path / "dated" / "rft_ledger.jsonl")) == 2


def test_rows_out_of_a_checkpoint_get_their_lines(taxonomy, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    running = generation.Generation(taxonomy=taxonomy, output=tmp_path / "dated", checkpoints=tmp_path / "checkpoints")
    path = running.output / "rft_ledger.jsonl"
    before = generation.Generation(taxonomy=taxonomy, checkpoints=running.checkpoints)
    ledger.append(tmp_path / "earlier.jsonl", [{"id": "a"}, {"id": "b"}, {"id": "c"}], before)
    ledger.append(path, [{"id": "d"}], running)
    generated = running.output / "generated_1"
    generated.mkdir()
    rows = [{"rft_ledger_id": key} for key in ("b", "d", "lost")] + [{"question": "of a leaf without grader"}]
    (generated / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ledger.take_over(running)
    assert lines(path) == [{"id": "d"}, {"id": "b", "from_checkpoint": True}]
    assert any(message.startswith("1 of them have no line in") for message in caplog.messages)


def test_a_ledger_is_nowhere_lost(tmp_path, caplog):
    path = ledger.place("rft_ledger.jsonl", None)
    assert path.parent == tmp_path / "XDG_DATA_HOME" / "instructlab" / "rft" / "ledgers" and str(path) in caplog.text
    assert ledger.place(str(tmp_path / "x"), None) == tmp_path / "x"
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"the ledger cannot be written: .*set `ledger`"):
        ledger.append(tmp_path / "file" / "ledger.jsonl", [{}], None)


def test_generate_data_is_wrapped_once_and_in_both_places():
    module = sys.modules["instructlab.sdg.generate_data"]
    wrapped = module.generate_data
    assert wrapped.runs_rft_ilab and sdg.generate_data is wrapped and wrapped.__name__ == "generate_data"
    ours.attach(module)
    assert module.generate_data is wrapped
    with pytest.raises(TypeError, match="no_such_argument"):
        wrapped(None, no_such_argument=1)


# Leaves.


def environment(taxonomy, name, description=DESCRIPTION):
    qna = taxonomies.QNA.replace(DESCRIPTION, description)
    taxonomies.write_skill(taxonomy, name, qna=qna)


def test_two_skills_with_one_name_in_sdg(tmp_path):
    environment(tmp_path, "a/b_c")
    environment(tmp_path, "a_b/c", "Something else.")
    both = leaves.load_environments(tmp_path)
    assert leaves.find(both, "compositional_skills_a_b_c", "Something else.\n").skill.name == "a_b/c"
    with pytest.raises(HostError, match="a/b_c and a_b/c have the same name in SDG"):
        leaves.find(both, "compositional_skills_a_b_c", None)


def test_questions_about_one_context_are_compared_without_it(taxonomy):
    (found,) = leaves.load_environments(taxonomy)
    long = "One document, of some length, that says many things about a number of subjects. And on" * 3 + "\n\n"
    index = leaves.ByContext(found)
    index.add("before", long + "Who wrote it?")
    assert index.find(long + "Who wrote it??") == "before" == index.find(long + "Who has written it")
    index.about(long)
    index.add("first", long + "Who wrote it?")
    assert index.find(long + "Who has written it") is None and index.find(long + "Who wrote it") == "first"
    assert index.find("Question 0?") is not None, "training tasks are there from the start"


def test_training_tasks_with_the_context_count(taxonomy):
    context = "One document, of some length, that says many things about a number of subjects.\n\n"
    taxonomies.write_skill(taxonomy, rows=[taxonomies.row(f"{context}Who wrote it?", "YES", split="train")])
    (found,) = leaves.load_environments(taxonomy)
    index = leaves.ByContext(found)
    index.about(context)
    assert index.find(context + "Who wrote it") == found.tasks[0].id and index.find(context + "Where is it") is None


# What is shipped, and what the documentation shows.


def flow(file, server, batch=0):
    ctx = sdg.PipelineContext(
        server.client(), model_id="m", batch_size=batch, num_instructions_to_generate=1, dataset_num_procs=1
    )
    return sdg.Pipeline.from_file(ctx, str(file))


@pytest.fixture
def configured(taxonomy, monkeypatch):
    """Outside of a generation the taxonomy is that of ilab's configuration."""
    monkeypatch.setattr(generation, "taxonomy_of", lambda options, running: taxonomy)
    return taxonomy


def seeds(count, **more):
    return Dataset.from_list(
        [
            {"task_description": DESCRIPTION, "leaf_node_path": LEAF}
            | {"seed_question": f"Seed question {i}?", "seed_response": "YES"} | more
            for i in range(count)
        ]
    )  # fmt: skip


def test_the_shipped_freeform_flow(server, configured, tmp_path):
    server.texts = ["probe"] * 6 + [" Is it so?\nAnswer: YES"]
    server.texts += ["Question: Is it\nnow\n\n Answer:  YES\nQuestion: What?\nAnswer: NO", "", "Nothing else"]
    out = flow(pipelines.shipped()["rft"] / "freeform_skills.yaml", server).generate(seeds(4))
    assert list(zip(out["question"], out["response"], strict=True)) == [("Is it so?", "YES"), ("Is it\nnow", "YES")]
    (path,) = (tmp_path / "XDG_DATA_HOME").rglob("rft_ledger-*.jsonl")
    assert [line["disposition"] for line in lines(path)] == ["kept", "kept", "malformed", "malformed"]


def test_the_shipped_grounded_flow(server, configured):
    server.texts = ["probe"] * 6 + ["Is it so\nAnswer: YES", "", "Is it now\nAnswer: NO"]
    out = flow(pipelines.shipped()["rft"] / "grounded_skills.yaml", server).generate(seeds(3, seed_context="A text."))
    assert out["question"][:] == ["A text.\n\nIs it so"]
    assert server.chats[0]["messages"][-1]["content"] == "A text.\n\nIs it so"


def test_the_shipped_knowledge_flow_survives_an_empty_completion(server):
    row = {f"icl_{kind}_{i}": "x" for kind in ("query", "response") for i in (1, 2, 3)}
    row |= {"icl_document": "d", "document_outline": "o", "domain": "x", "leaf_node_path": "knowledge_x"}
    server.texts = ["probe"] * 6 + ["Why? Because.", "  ", "How?\n\nSo."]
    rows = Dataset.from_list([row | {"document": text} for text in "abc"])
    out = flow(pipelines.shipped()["rft"] / "knowledge.yaml", server).generate(rows)
    assert out["output"][:] == ["Why? Because.", "How?\n\nSo."]


def test_the_pattern_is_not_slow():
    text = (pipelines.shipped()["rft"] / "freeform_skills.yaml").read_text(encoding="utf-8")
    pattern = re.compile(yaml.safe_load(text)["blocks"][0]["config"]["parser_kwargs"]["parsing_pattern"], re.DOTALL)
    ((question, answer),) = pattern.findall("\n \n" * 1500 + "Answer" + " \n" * 1500)
    assert (question.strip(), answer) == ("Answer", "")


def test_the_example_of_the_documentation(server, configured, tmp_path):
    text = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "freeform_skills.yaml").write_text(example, encoding="utf-8")
    prompt = {"system": "", "introduction": "", "principles": "", "examples": "{{seed_question}}", "generation": ""}
    prompt |= {"start_tags": [""], "end_tags": [""]}
    for name in ("question.yaml", "response.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(prompt), encoding="utf-8")
    server.texts = ["probe"] * 6 + ["Is it so", "Is it now", "", "YES", "NO", "YES"]
    out = flow(tmp_path / "freeform_skills.yaml", server).generate(seeds(3))
    assert list(zip(out["question"], out["response"], strict=True)) == [("Is it so", "YES")]
    ((_, _, config),) = pipelines.grader_blocks(tmp_path)
    assert (config["samples"], config["needed"]) == (5, 4) and len(server.chats) == 10
    for key in Options.__dataclass_fields__:
        assert f"`{key}`" in text, f"docs/generation.md does not explain {key}"


# The command, and the hook.


def generate_command(seen):
    @click.command()
    @click.option("--pipeline", help="Which one. [default: full]")
    @click.pass_context
    def generate(ctx, pipeline):
        seen.append((pipeline, ctx.params["pipeline"]))

    extend.extend("instructlab.cli.data.generate", generate)
    return generate


@pytest.mark.parametrize("pipeline", ["simple", "full", "/a/directory", None])
def test_other_values_of_pipeline_stay_as_they_are(pipeline):
    seen = []
    result = CliRunner().invoke(generate_command(seen), [] if pipeline is None else ["--pipeline", pipeline])
    assert result.exit_code == 0 and seen == [(pipeline, pipeline)]


def test_the_name_rft_becomes_the_directory():
    seen = []
    command = generate_command(seen)
    assert CliRunner().invoke(command, ["--pipeline", "rft"]).exit_code == 0
    directory = str(ROOT / "rft_ilab" / "host" / "pipelines" / "rft")
    assert seen == [(directory, directory)]
    said = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert re.search(r"Which one\. Also 'rft': .* support them\. \[default: full\]", said)


def python(program, **environment):
    command, environment = [sys.executable, "-c", program], {**os.environ, **environment}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.split(), result.stderr


REGISTERED = """import instructlab.sdg as sdg
print('GraderFilterBlock' in sdg.BlockRegistry.get_registry() and hasattr(sdg.generate_data, 'runs_rft_ilab'))
"""


@pytest.mark.parametrize(
    "program, disabled, registered",
    [
        # as a detached `ilab data generate` begins
        ("from instructlab.configuration import _serve\nimport instructlab.data.generate_data\n", "", "True"),
        ("", "", "True"),
        ("", "__all__", "False"),
        ("import rft_ilab.host.sdg\n", "", "True"),
        ("import rft_ilab.host.sdg\n", "__all__", "True"),
    ],
)
def test_the_block_is_known_in_every_process(program, disabled, registered):
    program += REGISTERED + "import sys; print('rft_ilab.synth.screening' in sys.modules)"
    said, error = python(program, PYDANTIC_DISABLE_PLUGINS=disabled)
    assert said == [registered, "False"] and "Warning: rft-ilab" not in error


def test_a_failure_breaks_no_import_and_is_said():
    program = "import sys; sys.modules['rft_ilab.host.sdg.block'] = None\n" + REGISTERED
    said, error = python(program)
    assert said == ["False"]
    assert error.startswith("Warning: rft-ilab could not register its block in instructlab-sdg (")
    assert error.count("\n") == 1


def test_what_was_imported_before_the_hook_is_attached_too(monkeypatch):
    attached = []
    monkeypatch.setattr(hook, "EXTENDED", {})
    monkeypatch.setattr(hook, "failures", {})
    monkeypatch.setattr(ours, "attach", attached.append)
    before = list(sys.meta_path)
    monkeypatch.setattr(sys, "meta_path", [f for f in before if not isinstance(f, hook.CommandFinder)])
    hook.install()
    assert attached == [sys.modules["instructlab.sdg.generate_data"]] and hook.failures == {}
