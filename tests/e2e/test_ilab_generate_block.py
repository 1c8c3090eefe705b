"""``ilab data generate`` with ``GraderFilterBlock``, for real: SDG, a llama.cpp server, the embedded model."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from rft_ilab.config import Settings
from rft_ilab.grading.engine import build_grader
from rft_ilab.host.pipelines import shipped
from rft_ilab.policy.local.embedded import find_gguf
from rft_ilab.skills.tasks import task_from_row
from rft_ilab.skills.tree import load_skill
from rft_ilab.types import Rollout

pytestmark = pytest.mark.slow

GRADER = {
    "type": "label", "name": "answer", "input": "{{sample.output_text}}", "reference": "{{item.reference}}",
    "labels": ["yes", "no"],
}  # fmt: skip
HEAD = "version: 3\ncreated_by: rft-ilab\ntask_description: {}\nseed_examples:\n"
FRUIT_QNA = HEAD.format("Is it a fruit? Answer yes or no.") + "".join(
    f"  - question: {thing}\n    answer: '{answer}'\n"
    for thing, answer in [("An apple", "yes"), ("A chair", "no"), ("A plum", "yes"), ("A stone", "no"), ("A car", "no")]
)
BASKET_QNA = HEAD.format("Is it in the basket? Answer yes or no.") + "".join(
    f"  - context: The basket holds {basket}.\n    question: Is {thing} in the basket?\n    answer: '{answer}'\n"
    for basket, thing, answer in [
        ("an apple and a pear", "a pear", "yes"), ("a plum", "a kiwi", "no"), ("two lemons and a fig", "a fig", "yes"),
        ("a peach and a melon", "a lime", "no"), ("some cherries", "a cherry", "yes"),
    ]
)  # fmt: skip
SOUND_QNA = HEAD.format("Name the animal that makes the sound. Answer with one word.") + "".join(
    f"  - question: Which animal says {sound}?\n    answer: {animal}\n"
    for sound, animal in [("moo", "cow"), ("woof", "dog"), ("meow", "cat"), ("oink", "pig"), ("baa", "sheep")]
)
FRUIT, BASKET, SOUND = "demo/fruit", "demo/basket", "demo/sound"
QNA = {FRUIT: FRUIT_QNA, BASKET: BASKET_QNA, SOUND: SOUND_QNA}
FREEFORM = """version: "1.0"
blocks:
  - name: gen_questions
    type: LLMBlock
    config:
      config_path: question.yaml
      model_prompt: ""
      output_cols: [question]
      gen_kwargs: {max_tokens: 32, temperature: 0.8, n: scaled, stop: ["\\n"]}
  - name: gen_responses
    type: LLMBlock
    config:
      config_path: response.yaml
      model_prompt: ""
      output_cols: [response]
      gen_kwargs: {max_tokens: 4, temperature: 0.7, stop: ["\\n"]}
  - name: verify
    type: GraderFilterBlock
    config:
      question_column: question
      answer_column: response
      samples: 3
      needed: 2
      ledger: my_ledger.jsonl
"""
QUESTION = """system: A pear
introduction: A table
principles: A banana
examples: "{{seed_question}}"
generation: A
start_tags: [""]
end_tags: [""]
"""
RESPONSE = """system: "{{task_description}}"
introduction: ""
principles: ""
examples: |
  Question: A pear
  Answer: yes
  Question: A table
  Answer: no
  Question: {{seed_question}}
  Answer: {{seed_response}}
generation: |
  Question: {{question}}
  Answer:
start_tags: [""]
end_tags: [""]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """llama.cpp's OpenAI-compatible server with the embedded model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "llama_cpp.server", "--model", find_gguf(), "--model_alias", "smollm2", "--seed", "7",
        "--host", "127.0.0.1", "--port", str(port), "--n_ctx", "2048", "--n_threads", "2", "--verbose", "false",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}/v1"
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            for _ in range(600):
                if process.poll() is not None:
                    pytest.fail(f"the server ended:\n{log.read_text()}")
                try:
                    urllib.request.urlopen(f"{url}/models", timeout=5)
                    break
                except urllib.error.URLError:
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()


@pytest.fixture
def student(ilab):
    """SDG only looks at the architecture of the model that will be trained."""
    directory = ilab.root / "student"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    config = ilab.root / "config" / "instructlab" / "config.yaml"
    head, train = re.split(r"(?=^train:)", config.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)
    config.write_text(head + re.sub(r"^  model_path: .*$", f"  model_path: {directory}", train, flags=re.MULTILINE))


def write_taxonomy(taxonomy, *names):
    """Exactly these leaves; all but SOUND with a grader."""
    shutil.rmtree(taxonomy / "compositional_skills")
    settings = [f'[skills."{name}"]\nmax_tokens = 4\ndemonstrations = 5\n' for name in names if name != SOUND]
    (taxonomy / "rft.toml").write_text("".join(settings), encoding="utf-8")
    for name in names:
        leaf = taxonomy / "compositional_skills" / name
        leaf.mkdir(parents=True)
        (leaf / "qna.yaml").write_text(QNA[name], encoding="utf-8")
        (leaf / "attribution.txt").write_text("Written for the tests of rft-ilab.\n", encoding="utf-8")
        if name != SOUND:
            tasks = [{"messages": [{"role": "user", "content": f"Nut {i}"}], "reference": "no"} for i in range(9)]
            (leaf / "grader.json").write_text(json.dumps(GRADER), encoding="utf-8")
            (leaf / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks), encoding="utf-8")


@pytest.fixture
def pipeline(ilab):
    """A pipeline directory as a user would write it; the knowledge and grounded flows are those of rft."""
    directory = ilab.root / "pipeline"
    shutil.copytree(shipped()["rft"], directory)
    for name, text in [("freeform_skills", FREEFORM), ("question", QUESTION), ("response", RESPONSE)]:
        (directory / f"{name}.yaml").write_text(text, encoding="utf-8")
    return directory


@pytest.fixture
def generate(ilab, server, student):
    """Run ``ilab data generate``; what it said, and its dated directory."""

    def run(pipeline, scale):
        output = ilab.root / "generated"
        before = set(output.glob("20*"))
        result = ilab(
            "data", "generate", "--pipeline", pipeline, "--sdg-scale-factor", str(scale), "--num-cpus", "2",
            "--taxonomy-base", "empty", "--endpoint-url", server, "--model", "smollm2", "--output-dir", output,
            timeout=600,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        (dated,) = set(output.glob("20*")) - before
        return result.stderr, dated

    return run


def rows_of(path: Path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pairs_of(rows):
    """(question, answer) of rows of messages, sorted; SDG strips both."""
    turns = [{message["role"]: message["content"] for message in row["messages"]} for row in rows]
    return sorted((turn["user"], turn["assistant"]) for turn in turns)


def leaf_rows(dated, name):
    leaf = f"compositional_skills_{name.replace('/', '_')}.jsonl"
    return [row for file in dated.glob(f"node_datasets_*/{leaf}") for row in rows_of(file)]


def check(taxonomy, dated, name, ledger, generated):
    """Every row has one line, the leaf has exactly the kept rows, and each passes a grade of our own. Returns them."""
    lines = [line for line in rows_of(ledger) if line["skill"] == name]
    assert len({line["id"] for line in lines}) == len(lines) == generated
    kept = {line["id"]: line for line in lines if line["disposition"] == "kept"}
    rows = leaf_rows(dated, name)
    assert sorted(row["rft_ledger_id"] for row in rows) == sorted(kept)
    skill = load_skill(taxonomy, name, Settings())
    grader = build_grader(skill)
    for row in rows:
        line = kept[row["rft_ledger_id"]]
        ((question, answer),) = pairs_of([row])
        assert (line["prompt"].strip(), line["completion"].strip()) == (question, answer)
        task = task_from_row(skill, {"messages": [{"role": "user", "content": question}], "reference": answer})
        texts = [answer, *line["answers"]]
        graded = [(task, Rollout(task_id=task.id, index=0, policy_id="p", completion=t, stop="eos")) for t in texts]
        own, *others = [bool(grade.passed) for grade in grader.grade(graded)]
        assert own and len(others) == line["samples"] and sum(others) == line["agreed"]
    return pairs_of(rows)


def check_training_files(dated, expected):
    """What ``ilab model train`` reads: the messages are these; mixing repeats rows, but adds none."""
    (messages,) = dated.glob("messages_*.jsonl")
    assert pairs_of(rows_of(messages)) == sorted(expected)
    (mixed,) = dated.glob("skills_train_msgs_*.jsonl")
    assert set(pairs_of(rows_of(mixed))) <= set(expected)


def check_prompt_sets(dated, expected):
    """What RL reads: the kept rows of skills with a grader, no others, and no answer but the reference."""
    rows = rows_of(dated / "rlvr" / "trl" / "train.jsonl")
    asked = sorted((row["prompt"][-1]["content"].strip(), row["reference"].strip()) for row in rows)
    assert asked == sorted(set(expected))
    assert len(list((dated / "rlvr").glob("open-instruct-*/train.parquet"))) == 1


def test_the_pipeline_rft(ilab, generate):
    write_taxonomy(ilab.taxonomy, FRUIT, BASKET)
    # Two rows of five stay here; another processor may round otherwise, so there are enough rows to be sure of some.
    said, dated = generate("rft", 3)
    ledger = dated / "rft_ledger.jsonl"
    kept = [*check(ilab.taxonomy, dated, FRUIT, ledger, 15), *check(ilab.taxonomy, dated, BASKET, ledger, 15)]
    assert kept and any(question.startswith("The basket holds") for question, _ in kept)
    assert all(line["agreed"] >= 3 for line in rows_of(ledger) if line["disposition"] == "kept")
    check_training_files(dated, kept)
    for name in (FRUIT, BASKET):
        assert re.search(rf"{name}: (\d+|none) of 15 rows (was )?verified", said)
    check_prompt_sets(dated, kept)
    assert list(ilab.home.rglob("*")) == []


def test_a_pipeline_of_the_users_own(ilab, generate, pipeline):
    write_taxonomy(ilab.taxonomy, FRUIT, SOUND)
    said, dated = generate(pipeline, 2)
    kept = check(ilab.taxonomy, dated, FRUIT, dated / "my_ledger.jsonl", 10)
    assert kept and len(leaf_rows(dated, SOUND)) == 10
    check_training_files(dated, [*kept, *pairs_of(leaf_rows(dated, SOUND))])
    check_prompt_sets(dated, kept)
    assert "compositional_skills_demo_sound: no grader.json" in said

    # ilab takes what it has out of its checkpoints; these rows have their lines in the new ledger too.
    said, again = generate(pipeline, 2)
    lines = rows_of(again / "my_ledger.jsonl")
    check(ilab.taxonomy, again, FRUIT, again / "my_ledger.jsonl", len(lines))
    assert sum(line.get("from_checkpoint", False) for line in lines) == len(kept)


def test_help_names_the_pipeline(ilab):
    said = " ".join(ilab("data", "generate", "--help").stdout.split())
    assert re.search(r"Available: 'simple', 'full'.* Also 'rft': rows of a skill with a .* \[default: full;", said)
