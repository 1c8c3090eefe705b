"""Tasks of lm-evaluation-harness as suites, with data of our own; and the likelihood of choices."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rft_ilab.config import SuiteSettings
from rft_ilab.errors import PolicyError, SkillError
from rft_ilab.policy.local.likelihood import likelihoods
from rft_ilab.policy.local.model import LoadedModel, load_model
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.rollouts import collect
from rft_ilab.store import Cache
from rft_ilab.suites import SuiteEnvironment, answering, harness, harness_child, load_suite
from rft_ilab.suites.choosing import write_answer
from rft_ilab.types import Message, Prompt, Rollout, Sampling, Task
from tests.tiny_model import make_tiny_model

DOCS = [
    {"question": "What colour is the sky?", "choices": ["blue", "green", "red"], "gold": 0, "answer": "#### blue"},
    {"question": "What is 1 + 1?", "choices": ["3", "2", "5"], "gold": 1, "answer": "It is two. #### 2"},
    {"question": "What do cows drink?", "choices": ["petrol", "milk", "water"], "gold": 2, "answer": "#### water"},
]
COMMON = """
dataset_path: json
dataset_kwargs:
  data_files:
    test: docs.jsonl
test_split: test
fewshot_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
"""
MEAN = "\n    aggregation: mean\n    higher_is_better: true\n"
CHOICES = 'output_type: multiple_choice\ndoc_to_choice: "{{choices}}"\ndoc_to_target: gold\n'
WRITTEN = """output_type: generate_until
doc_to_target: "{{answer.split('#### ')[-1]}}"
generation_kwargs:
  until: ["Question:"]
  max_gen_toks: 40
filter_list:
  - name: strict
    filter:
      - function: regex
        regex_pattern: "#### (\\\\w+)"
      - function: take_first
"""
TASKS = {
    # f1 is computed over all tasks at once, so acc is the first metric that says something of one.
    "tiny_choice": CHOICES + "metric_list:\n  - metric: f1\n    aggregation: f1\n    higher_is_better: true\n"
    f"  - metric: acc{MEAN}",
    "tiny_written": WRITTEN + f"description: Answer after four hashes.\nmetric_list:\n  - metric: exact_match{MEAN}",
    # Whose filter takes for ever on "aaaa...ab".
    "tiny_slow": WRITTEN.replace('"#### (\\\\w+)"', '"^(a+)+$"') + f"metric_list:\n  - metric: exact_match{MEAN}",
    "tiny_likely": f'output_type: loglikelihood\ndoc_to_target: " {{{{answer}}}}"\nmetric_list:\n  - metric: acc{MEAN}',
    "tiny_perplexity": 'output_type: loglikelihood_rolling\ndoc_to_target: "{{answer}}"\nmetric_list:\n'
    "  - metric: word_perplexity\n    aggregation: weighted_perplexity\n    higher_is_better: false\n",
    "tiny_f1": CHOICES + "metric_list:\n  - metric: f1\n    aggregation: f1\n    higher_is_better: true\n",
    "tiny_prefix": WRITTEN + f'gen_prefix: "The answer is"\nmetric_list:\n  - metric: exact_match{MEAN}',
    "tiny_unsafe": WRITTEN + f"unsafe_code: true\nmetric_list:\n  - metric: exact_match{MEAN}",
    "tiny_repeats": WRITTEN + f"repeats: 4\nmetric_list:\n  - metric: exact_match{MEAN}",
}


@pytest.fixture(scope="module")
def include(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tasks")
    (directory / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    for name, text in TASKS.items():
        (directory / f"{name}.yaml").write_text(f"task: {name}{COMMON}{text}")
    return directory


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """lm_eval's child inherits the environment; what it converts goes nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def written(include: Path) -> SuiteEnvironment:
    return load_suite("lm_eval:tiny_written", SuiteSettings(tier="critical", margin=0.2), include)


@pytest.fixture(scope="module")
def choice(include: Path) -> SuiteEnvironment:
    return load_suite("lm_eval:tiny_choice", SuiteSettings(), include)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(make_tiny_model(tmp_path_factory.mktemp("tiny")), torch.float32)


def graded(suite: SuiteEnvironment, answer: Callable[[Task], str]) -> list[Any]:
    pairs = [
        (task, Rollout(task_id=task.id, index=0, policy_id="p", completion=answer(task), stop="eos"))
        for task in suite.tasks
    ]
    return suite.grader.grade(pairs)


def test_a_written_task_is_asked_as_a_chat_and_graded_by_lm_eval(written: SuiteEnvironment) -> None:
    assert (written.skill.name, written.skill.tier) == ("suite/lm_eval:tiny_written", "critical")
    assert (written.settings.max_tokens, written.settings.margin, written.settings.demonstrations) == (40, 0.2, 0)
    assert len({task.group for task in written.tasks}) == 3 and written.choices is None
    task = next(task for task in written.tasks if "1 + 1" in task.messages[-1].content)
    assert task.messages == (
        Message("system", "Answer after four hashes."),
        Message("user", "Question: What is 1 + 1?\nAnswer:"),
    )
    assert task.reference == "2"
    right = graded(written, lambda task: f"Well: #### {task.reference}\n\nQuestion: #### 7")
    assert [(g.passed, g.score, g.answer) for g in right] == [(True, 1.0, task.reference) for task in written.tasks]
    wrong = graded(written, lambda task: task.reference)  # the filter wants hashes
    assert [(g.passed, g.score, g.reason) for g in wrong] == [(False, 0.0, "exact_match 0")] * 3
    assert not any(g.passed for g in graded(written, lambda task: "Question: #### " + task.reference))
    assert [g.reason for g in graded(written, lambda task: "#" * 100_001)] == ["longer than 100000 characters"] * 3


def test_choices_are_graded_by_their_likelihoods(choice: SuiteEnvironment) -> None:
    gold = {task.id: task.reference for task in choice.tasks}
    assert choice.choices is not None and set(gold.values()) == {"blue", "2", "water"}
    assert {choice.choices[id][[doc["answer"].endswith(g) for doc in DOCS].index(True)] for id, g in gold.items()} == {
        *gold.values()
    }

    def told(task: Task, best: str) -> str:
        choices = choice.choices[task.id]
        return write_answer(choices, [(-1.0 if text == best else -2.0, False) for text in choices])

    assert all(
        g.passed and g.answer == gold[t.id]
        for t, g in zip(choice.tasks, graded(choice, lambda task: told(task, gold[task.id])), strict=True)
    )
    first = graded(choice, lambda task: told(task, choice.choices[task.id][0]))
    assert [g.passed for g in first] == [gold[task.id] == "blue" for task in choice.tasks]
    # What is no JSON of likelihoods is no answer of ours: an error, not a wrong answer.
    assert all(g.score is None and "JSON" in g.error for g in graded(choice, lambda task: "blue"))


def test_a_limit_takes_a_part(include: Path, choice: SuiteEnvironment) -> None:
    one = load_suite("lm_eval:tiny_choice", SuiteSettings(limit=1, max_tokens=9, demonstrations=2), include)
    (task,) = one.tasks
    assert [turn.role for turn in task.messages] == ["user", "assistant"] * 2 + ["user"]
    assert (one.settings.max_tokens, one.settings.demonstrations) == (9, 2)
    # Another prompt is graded alike, but is another task.
    assert task.messages[-1].content in {t.messages[-1].content for t in choice.tasks}
    assert task.id not in {t.id for t in choice.tasks} and one.grader.digest != choice.grader.digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_perplexity", "is of type loglikelihood_rolling; supported are generate_until, multiple_choice"),
        ("tiny_f1", "has no metric that is a mean over its tasks (but f1)"),
        ("tiny_prefix", "begins the answer itself (gen_prefix)"),
        ("tiny_unsafe", "runs code that the model wrote"),
        ("tiny_repeats", "asks everything several times"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(
    include: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(include)
    with pytest.raises(harness_child.Refusal) as caught:
        harness_child.Harness(name, str(include), 0).describe()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_are_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path must not be taken for a name: lm_eval would run the code that the file names."""

    class Manager:
        all_subtasks = ("arc_easy",)
        all_tasks = ("arc_easy", "mmlu")

        def __init__(self, include_path: Any = None, include_defaults: bool = True) -> None:
            pass

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Manager)
    for name, why in (("mmlu", "is a group of tasks"), ("arc_hard", "no such task"), ("./evil.yaml", "no such task")):
        with pytest.raises(harness_child.Refusal, match=why):
            harness_child.Harness(name, None, 0)


def test_refusals_and_failures_reach_people_as_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for told, message in (
        ({"refused": "is a group of tasks"}, r"^suite/lm_eval:mmlu: is a group of tasks$"),
        (
            {"error": "ConnectionError: no hub"},
            r"^suite/lm_eval:mmlu: lm_eval cannot load it: ConnectionError: no hub \(its",
        ),
    ):
        monkeypatch.setattr(harness.Child, "load", lambda child, told=told: told)
        with pytest.raises(SkillError, match=message):
            load_suite("lm_eval:mmlu")
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(SkillError, match=r"needs lm-evaluation-harness \(pip install lm_eval"):
        load_suite("lm_eval:mmlu")


def test_an_answer_that_hangs_is_an_error_and_the_next_one_is_graded(
    include: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = load_suite("lm_eval:tiny_slow", SuiteSettings(limit=1), include)
    with monkeypatch.context() as patch:
        patch.setattr(harness, "SCORE_SECONDS", 1.0)
        (grade,) = graded(slow, lambda task: "a" * 60 + "b")
    assert grade.score is None and grade.error == "lm_eval did not score it: no answer in 1 s"
    (grade,) = graded(slow, lambda task: "aaa")
    assert grade.error is None and grade.passed is False


# ---- likelihoods ----


def test_likelihoods_equal_those_of_the_model_itself(tiny: LoadedModel) -> None:
    prompts = [
        Prompt(task_id=str(i), messages=(Message("system", "Be brief."), Message("user", text)))
        for i, text in enumerate(["Which colour?", "How many are there?", "Which colour is it?"])
    ]
    choices = [("red", "blue and green", "r"), ("two", " 2"), ("red",)]
    for prompt, several, found in zip(prompts, choices, likelihoods(tiny, prompts, choices), strict=True):
        ids = tiny.encode_prompt(prompt.messages)
        assert len(found) == len(several)
        for text, (logprob, greedy) in zip(several, found, strict=True):
            answer = tiny.tokenizer(text, add_special_tokens=False).input_ids
            total, said = 0.0, True
            for k, token in enumerate(answer):
                logits = one_step(tiny, ids + answer[:k])
                total += float(torch.log_softmax(logits, dim=-1)[token])
                said &= int(logits.argmax()) == token
            assert (logprob, greedy) == (pytest.approx(total, abs=1e-4), said)


def one_step(tiny: LoadedModel, ids: list[int]) -> torch.Tensor:
    """Next-token logits by transformers' own attention."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.directory, torch_dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0, -1]
    return logits


def test_greedy_decoding_says_what_is_called_greedy(tiny: LoadedModel) -> None:
    found = []
    for word in "abcdefghijklmnopqrstuvwxyz":
        prompt = Prompt(task_id="t", messages=(Message("user", f"Which {word}?"),))
        (said,) = LocalPolicy(tiny).sample([prompt], 1, Sampling(temperature=0.0, max_tokens=1))
        text = tiny.tokenizer.decode(said.token_ids or ())
        if tiny.tokenizer(text, add_special_tokens=False).input_ids == list(said.token_ids or ()):
            found.append((*next(likelihoods(tiny, [prompt], [[text, "unlikely"]])), math.fsum(said.logprobs or ())))
    assert found  # some first token is written as it is read
    for (logprob, greedy), (_, unlikely), told in found:
        assert greedy and not unlikely and logprob == pytest.approx(told, abs=1e-4)


def test_a_prompt_that_is_too_long_and_an_empty_choice_are_refused(tiny: LoadedModel) -> None:
    prompt = Prompt(task_id="t", messages=(Message("user", "long " * 400),))
    with pytest.raises(PolicyError, match="more than the 512"):
        next(likelihoods(tiny, [prompt], [["a"]]))
    with pytest.raises(ValueError, match="no tokens"):
        next(likelihoods(tiny, [prompt], [["a", ""]]))


def test_a_local_model_answers_a_task_with_choices(choice: SuiteEnvironment, tiny: LoadedModel, tmp_path: Path) -> None:
    policy = answering(LocalPolicy(tiny), choice)
    assert policy.id != LocalPolicy(tiny).id
    cache = Cache(tmp_path / "cache.sqlite")
    groups = collect(policy, choice.grader, choice.skill, choice.tasks, 2, Sampling(), demonstrations=0, cache=cache)
    for task, (first, second) in zip(choice.tasks, groups, strict=True):
        told = json.loads(first.rollout.completion)
        assert told["likeliest"] in choice.choices[task.id] and first.rollout.completion == second.rollout.completion
        assert first.grade.passed == (told["likeliest"] == task.reference) and first.grade.error is None


def test_a_task_with_choices_needs_a_local_model(choice: SuiteEnvironment, written: SuiteEnvironment) -> None:
    policy = ScriptedPolicy(lambda prompt, index: "1")
    assert answering(policy, written) is policy
    with pytest.raises(PolicyError, match="needs a model in this process"):
        answering(policy, choice)
