"""``GraderFilterBlock`` in SDG's own ``Pipeline``, with SDG's own OpenAI client; only the server is scripted."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter

import httpx
import pytest
import yaml
from instructlab import sdg
from instructlab.configuration import DEFAULTS

from rft_ilab.errors import HostError, PolicyError
from rft_ilab.host.sdg import GraderFilterBlock, generation
from rft_ilab.host.sdg.client import ClientPolicy
from rft_ilab.host.sdg.options import Options
from rft_ilab.store import Cache
from rft_ilab.types import Message, Prompt, Sampling
from tests.unit import taxonomies
from tests.unit.sdg_server import COLUMNS, DESCRIPTION, LEAF, Server, client_of, dataset, lines


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
def pipe(tmp_path, taxonomy, server):
    """A pipeline of one block; keys of its config may be given. ``batch`` 0: one call, as with llama.cpp."""

    def make(batch=0, client=None, **config):
        config = {**COLUMNS, "taxonomy": str(taxonomy), "ledger": str(tmp_path / "ledger.jsonl"), **config}
        block = {"name": "verify", "type": "GraderFilterBlock", "config": config}
        file = tmp_path / "freeform_skills.yaml"
        file.write_text(yaml.safe_dump({"version": "1.0", "blocks": [block]}), encoding="utf-8")
        ctx = sdg.PipelineContext(client or server.client(), model_id="m", batch_size=batch, batch_num_workers=2)
        return sdg.Pipeline.from_file(ctx, str(file))

    return make


def test_every_row_has_one_disposition_and_only_kept_ones_stay(pipe, server, tmp_path):
    held_out = "Question 8?"  # split test of the tasks that the taxonomy has
    server.answers = lambda q: {"Is it so": ["YES", "YES.", "NO", "YES"], "Is it not": ["NO", "YES", "NO", "YES"]}[q]
    rows = dataset(
        ("Is it so", "YES"), ("Is it not", "YES"), ("What is it", "PERHAPS"), ("", "YES"), ("Is it", ""),
        ("is it so?", "NO"), (held_out, "YES"), (None, None),
    )  # fmt: skip
    out = pipe().generate(rows)
    found = lines(tmp_path / "ledger.jsonl")
    fates = ["kept", "no_agreement", "wrong", "malformed", "malformed", "duplicate", "contaminated", "malformed"]
    assert [line["disposition"] for line in found] == fates
    assert len({line["id"] for line in found}) == 8
    assert [row | {"rft_ledger_id": None} for row in out] == [rows[0] | {"rft_ledger_id": None}]
    assert out[0]["rft_ledger_id"] == found[0]["id"]
    assert (found[0]["agreed"], found[0]["samples"], found[0]["reference"]) == (3, 4, "YES")
    assert sorted(found[0]["answers"]) == ["NO", "YES", "YES", "YES."]
    assert (found[0]["seed_question"], found[0]["policy_id"]) == ("Seed question 0?", "endpoint:http://teacher/v1:m")
    assert found[0]["skill"] == "area/skill" and len(found[0]["grader_digest"]) == 64
    assert "unknown label 'PERHAPS'" in found[2]["reason"] and found[2]["completion"] == "PERHAPS"
    assert len(server.chats) == 8, "nobody is asked about rows that are out anyway"


def test_answers_are_independent_and_see_the_seed_examples(pipe, server):
    pipe(samples=3, needed=3).generate(dataset(("Is it so", "YES"), ("Is this so too", "YES")))
    assert {chat["model"] for chat in server.chats} == {"m"} and {chat["temperature"] for chat in server.chats} == {1.0}
    assert len({chat["seed"] for chat in server.chats}) == 6
    turns = server.chats[0]["messages"]
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * 6, "user"]
    assert turns[0]["content"] == DESCRIPTION and turns[1]["content"] == "Seed question 0?"


@pytest.mark.parametrize(
    "grader, fate, reason",
    [
        ({"type": "python", "source": "def grade(sample, item):\n    raise RuntimeError('no')\n"}, "error", "no"),
        ({**taxonomies.LABEL_GRADER, "reference": "{{item.other}}"}, "error", "other"),
        ({"type": "number", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}, "wrong", "YES"),
    ],
    ids=["crash", "a field that rows do not have", "no reference for this grader"],
)
def test_a_row_that_cannot_be_graded_is_never_kept(pipe, taxonomy, server, tmp_path, grader, fate, reason):
    rows = [taxonomies.row(f"Question {i}?", "7", other="YES") for i in range(9)]
    taxonomies.write_skill(taxonomy, grader={"name": "g", **grader}, rows=rows)
    assert len(pipe().generate(dataset(("Is it so", "YES")))) == 0
    (line,) = lines(tmp_path / "ledger.jsonl")
    assert line["disposition"] == fate and reason in line["reason"] and server.chats == []


def test_a_grader_that_fails_on_other_answers_keeps_nothing(pipe, taxonomy, server, tmp_path):
    source = "def grade(sample, item):\n    return 1.0 / (sample['output_text'] != 'NO')\n"
    taxonomies.write_skill(taxonomy, grader={"type": "python", "name": "g", "source": source})
    server.answers = lambda question: ["YES", "YES", "NO", "YES"]
    assert len(pipe(needed=1).generate(dataset(("Is it so", "YES")))) == 0
    (line,) = lines(tmp_path / "ledger.jsonl")
    assert line["disposition"] == "error" and "ZeroDivisionError" in line["reason"]


@pytest.mark.parametrize(
    "leaf, description",
    [
        ("compositional_skills_area_other", DESCRIPTION),
        ("knowledge_area_skill", DESCRIPTION),
        (LEAF, "The same name in SDG, but another leaf."),
    ],
)
def test_a_leaf_without_a_grader_passes_unchanged(pipe, server, tmp_path, caplog, leaf, description):
    caplog.set_level(logging.INFO)
    rows = dataset(("Is it so", "PERHAPS"), ("", ""), leaf=leaf, description=description)
    out = pipe().generate(rows)
    assert out.column_names == rows.column_names and list(out) == list(rows)
    assert server.chats == [] and not (tmp_path / "ledger.jsonl").exists()
    assert caplog.messages.count(f"{leaf}: no grader.json, so its rows pass unverified") == 1


def test_a_taxonomy_without_any_grader_is_no_error(pipe, taxonomy):
    (taxonomy / "compositional_skills" / "area" / "skill" / "grader.json").unlink()
    (taxonomy / "compositional_skills" / "area" / "skill" / "tasks.jsonl").unlink()
    assert len(pipe().generate(dataset(("Is it so", "YES")))) == 1


def test_a_skill_may_be_named_where_rows_do_not_say_their_leaf(pipe, tmp_path):
    rows = dataset(("Is it so", "YES"), ("Is it now", "MAYBE")).remove_columns(["leaf_node_path", "task_description"])
    out = pipe(skill="area/skill").generate(rows)
    assert out["question"][:] == ["Is it so"]
    with pytest.raises(sdg.PipelineBlockError, match=r"no skill 'area/skil' with a grader \(known: area/skill\)"):
        pipe(skill="area/skil").generate(rows)


def test_a_context_stands_before_the_question(pipe, server, tmp_path):
    rows = [("Is it so", "YES"), ("Is it now", "YES"), ("Is it now?", "YES")]
    long = "The document says many things, at length, about whatever it is. " * 5
    out = pipe(context_column="seed_context").generate(dataset(*rows, seed_context=long))
    assert [line["disposition"] for line in lines(tmp_path / "ledger.jsonl")] == ["kept", "kept", "duplicate"]
    assert out["question"][:] == ["Is it so", "Is it now"], "the column itself stays as it is"
    assert server.chats[0]["messages"][-1]["content"] == f"{long.strip()}\n\nIs it so"


def test_batches_in_threads_are_one_generation(pipe, server, tmp_path, caplog):
    pairs = [(f"Is the {word} so", "YES") for word in ["sun", "sea", "sky", "sun", "moon", "sun", "star", "earth"]]
    out = pipe(batch=2).generate(dataset(*pairs))
    fates = Counter(line["disposition"] for line in lines(tmp_path / "ledger.jsonl"))
    assert fates == {"kept": 6, "duplicate": 2} and len(out) == 6
    assert len(server.chats) == 24


def test_concurrency_is_bounded_and_llama_cpp_is_asked_one_by_one(pipe, server):
    barrier = threading.Barrier(4, timeout=10)

    def together(question):
        barrier.wait()
        return ["YES"]

    server.answers = together
    pipe(batch=8, concurrency=4).generate(dataset(("Is it so", "YES"), ("Is it now", "YES")))
    assert server.most == 4

    def slowly(question):
        time.sleep(0.02)
        return ["YES"]

    server.answers, server.most = slowly, 0
    pipe(batch=0).generate(dataset(("Was it so", "YES"), ("Was it now", "YES")))
    assert server.most == 1


def test_nothing_is_asked_twice(pipe, server):
    rows = dataset(("Is it so", "YES"), ("Is it now", "NO"))
    first = pipe().generate(rows)
    asked = len(server.chats)
    again = pipe().generate(rows)
    assert asked == len(server.chats) == 8 and again["question"][:] == first["question"][:]


def test_a_zero_yield_says_what_to_try(pipe, tmp_path, caplog):
    pipe().generate(dataset(("Is it so", "NO"), ("Is it now", "NO")))
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith("area/skill: none of 2 rows was verified (2 no_agreement)")
    assert str(tmp_path / "ledger.jsonl") in warning and "stronger teacher" in warning


# The config.


@pytest.mark.parametrize(
    "config, says",
    [
        ({"sample": 3}, "unknown key 'sample' (known: question_column, answer_column, "),
        ({"question_column": None}, "question_column is None (a text that is not empty"),
        ({"answer_column": " "}, "answer_column is ' ' (a text that is not empty"),
        ({"samples": 0}, "samples is 0 (a whole number from 1)"),
        ({"needed": True}, "needed is True (a whole number from 1)"),
        ({"samples": 2}, "needed is 3, of 2 samples (at most as many as samples)"),
        ({"seed": -1}, "seed is -1 (a whole number from 0)"),
        ({"question_column": "ask"}, "no column 'ask' in its rows (columns: leaf_node_path, number, question, "),
        ({"context_column": "context"}, "no column 'context' in its rows (columns: "),
    ],
)
def test_a_bad_config_is_one_line(pipe, tmp_path, server, config, says):
    with pytest.raises(sdg.PipelineBlockError) as caught:
        pipe(**config).generate(dataset(("Is it so", "YES")))
    message = str(caught.value)
    assert f"{tmp_path / 'freeform_skills.yaml'}: GraderFilterBlock 'verify': {says}" in message
    assert "\n" not in message and server.chats == []


@pytest.mark.parametrize("column", ["question_column", "answer_column"])
def test_the_two_columns_must_be_named(column):
    config = {key: value for key, value in COLUMNS.items() if key != column}
    with pytest.raises(sdg.BlockConfigParserError, match=f"'verify': no {column} "):
        Options.parse(config, block="verify", where=None)


def test_rows_must_say_their_leaf(pipe):
    with pytest.raises(sdg.PipelineBlockError, match="no column 'leaf_node_path' in its rows"):
        pipe().generate(dataset(("Is it so", "YES")).remove_columns(["leaf_node_path"]))


def test_no_model_and_no_taxonomy_are_one_line(taxonomy, server, tmp_path, monkeypatch):
    ctx = sdg.PipelineContext(server.client())
    block = GraderFilterBlock(ctx, None, "verify", **COLUMNS, taxonomy=str(taxonomy))
    with pytest.raises(sdg.BlockConfigParserError, match="no model to ask"):
        block.generate(dataset(("Is it so", "YES")))
    monkeypatch.setattr(type(DEFAULTS), "CONFIG_FILE", property(lambda self: str(tmp_path / "none.yaml")))
    with pytest.raises(HostError, match="knows no taxonomy"):
        generation.taxonomy_of(Options(**COLUMNS), None)


# The client.


def prompts(*texts):
    return [Prompt(task_id=text, messages=(Message("user", text),)) for text in texts]


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr("rft_ilab.host.sdg.client.BACKOFF_S", 0.001)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.002)


def completion(text):
    return {"choices": [{"finish_reason": "stop", "message": {"content": text}}]}


def test_a_server_that_fails_now_and_then_loses_nothing(tmp_path, fast):
    faults = iter([500, 429, "not json", 200, {"choices": []}, 200, "drop", 200, 200])

    def handle(request):
        fault = next(faults, 200)
        if fault == "drop":
            raise httpx.ConnectError("gone")
        if fault == 200:
            return httpx.Response(200, json=completion(json.loads(request.content)["messages"][0]["content"].upper()))
        return httpx.Response(*((fault, "") if isinstance(fault, int) else (200, json.dumps(fault))))

    policy = ClientPolicy(client_of(handle), "m", cache=Cache(tmp_path / "c"), concurrency=1)
    found = policy.sample(prompts("a", "b"), 2, Sampling())
    wanted = [("a", 0, "A"), ("a", 1, "A"), ("b", 0, "B"), ("b", 1, "B")]
    assert [(r.task_id, r.index, r.completion) for r in found] == wanted


def test_what_was_answered_before_a_failure_is_kept(tmp_path, fast):
    asked = []

    def handle(request):
        text = json.loads(request.content)["messages"][0]["content"]
        asked.append(text)
        return httpx.Response(401 if text == "bad" else 200, json=completion("yes"))

    cache = Cache(tmp_path / "c")
    policy = ClientPolicy(client_of(handle), "m", cache=cache, concurrency=1)
    with pytest.raises(PolicyError, match=r"asking m failed: .*401.*start the same command again") as caught:
        list(policy.sample(prompts("one", "two", "bad", "three"), 1, Sampling()))
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    before = len(asked)
    again = list(policy.sample(prompts("one", "two"), 1, Sampling()))
    assert [r.completion for r in again] == ["yes", "yes"] and len(asked) == before


def test_a_refusal_of_the_server_ends_the_generation_and_keeps_no_row(pipe, server, tmp_path):
    server.status = 403
    with pytest.raises(sdg.PipelineBlockError, match="asking m failed"):
        pipe().generate(dataset(("Is it so", "YES")))
    assert not (tmp_path / "ledger.jsonl").exists()
