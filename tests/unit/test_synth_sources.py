"""Tasks from generators and teachers: which are kept, and what the ledger says of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.config import DataSettings, Settings, SkillSettings
from rft_ilab.errors import RunError, SkillError
from rft_ilab.grading.engine import build_grader
from rft_ilab.grading.generator import generated_rows, has_generator
from rft_ilab.policy.scripted import ScriptedPolicy
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import Cache
from rft_ilab.synth import ledger
from rft_ilab.synth.ledger import Entry
from rft_ilab.synth.screening import Known, Screened, agreement, entry, held_out, screen
from rft_ilab.synth.sources import Proposal, from_generator, paraphrases, questions, tidy
from rft_ilab.synth.verify import Sourced, authored, verify_answers
from rft_ilab.types import Prompt
from tests.unit.taxonomies import LABEL_GRADER, row, write_skill

GENERATOR = """
import random
def tasks(seed):
    draw = random.Random(seed)
    while True:
        n = draw.randrange(10**6)
        label = ("YES", "NO", "MAYBE")[n % 3]
        yield {"messages": [{"role": "user", "content": f"Is number {n} one?"}], "reference": label}
"""


CONTAINS = {
    "type": "string_check",
    "name": "contains",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "like",
}


def environment(
    tmp_path: Path, generator: str = "", rows: list[Any] | None = None, grader: Any = LABEL_GRADER
) -> Environment:
    leaf = write_skill(tmp_path, rows=rows, grader=grader)
    if generator:
        (leaf / "generator.py").write_text(generator)
    skill = load_skill(tmp_path, "area/skill", Settings())
    return Environment.of(skill, load_tasks(skill), build_grader(skill), SkillSettings(demonstrations=2))


def screened(
    env: Environment, tmp_path: Path, proposals: list[Proposal], answer: Callable[[Prompt, int], str] | None = None
) -> list[Screened]:
    policy = ScriptedPolicy(answer) if answer else None
    cache = Cache(tmp_path / "c.sqlite")
    known = Known.of([env], env)
    return screen(env, proposals, known, policy, samples=4, needed=3, seed=0, cache=cache)


def proposed(text: str, **fields: Any) -> Proposal:
    made = {"messages": [{"role": "user", "content": text}], "origin": "synthetic", "split": "train"} | fields
    return Proposal(source="question", text=text, row=made, policy_id="teacher")


# -- generators -----------------------------------------------------------------------------------------------


def test_generated_tasks_are_the_same_for_a_seed_and_all_train(tmp_path: Path) -> None:
    env = environment(tmp_path, GENERATOR)
    assert has_generator(env.skill) and not has_generator(environment(tmp_path / "other").skill)
    first, second = generated_rows(env.skill, 150, 3), generated_rows(env.skill, 100, 3)
    assert len(first) == 150 and first[:100] == second and generated_rows(env.skill, 5, 4) != second[:5]
    found = screened(env, tmp_path, from_generator(env.skill, 40, 3, Cache(tmp_path / "g.sqlite")))
    kept = [one for one in found if one.disposition == "kept"]
    assert len(kept) == 40
    assert {(one.task.split, one.task.origin) for one in kept if one.task} == {("train", "generated")}


def test_a_generator_that_ends_yields_what_it_has(tmp_path: Path) -> None:
    source = 'def tasks(seed):\n    for n in range(70):\n        yield {"n": n}\n'
    assert generated_rows(environment(tmp_path, source).skill, 500, 0) == [{"n": n} for n in range(70)]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def tasks(seed):\n    raise ValueError('no luck')\n", "no luck"),
        ("def other(seed): pass\n", "tasks"),
        ("def tasks(seed): return 5\n", "iterable|int"),
        ("syntax error", "syntax"),
        ("def tasks(seed):\n    yield {'key': open('/etc/passwd').read()}\n", "(?i)permission|denied|permitted"),
        ("def tasks(seed):\n    yield object()\n", "object|plain"),
    ],
)  # fmt: skip
def test_a_generator_that_fails_is_an_error_of_the_skill(tmp_path: Path, source: str, what: str) -> None:
    env = environment(tmp_path, source)
    with pytest.raises(SkillError, match=what) as caught:
        generated_rows(env.skill, 5, 0)
    assert "generator.py" in str(caught.value) and "\n" not in str(caught.value)


def test_a_generator_cannot_see_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    source = "import os\ndef tasks(seed):\n    yield {'seen': sorted(os.environ)}\n"
    assert "OPENAI_API_KEY" not in generated_rows(environment(tmp_path, source).skill, 1, 0)[0]["seen"]


def test_a_wrong_reference_and_a_row_that_is_none_are_not_kept(tmp_path: Path) -> None:
    source = """
def tasks(seed):
    yield {"messages": [{"role": "user", "content": "Is it red?"}], "reference": "YES"}
    yield {"messages": [{"role": "user", "content": "Is it blue?"}], "reference": "PERHAPS"}
    yield {"messages": [], "reference": "YES"}
    yield 7
    yield {"messages": [{"role": "user", "content": "is it RED"}], "reference": "YES"}
    yield {"messages": [{"role": "user", "content": "Is it mine?"}], "reference": "YES", "group": "held"}
    yield {"messages": [{"role": "user", "content": "Question 9?"}], "reference": "YES"}
"""
    rows = [row(f"Question {i}?", "YES", split="train") for i in range(3)] + [
        row("Question 9?", "YES", split="test", group="held")
    ]
    env = environment(tmp_path, source, rows)
    found = screened(env, tmp_path, from_generator(env.skill, 50, 0, Cache(tmp_path / "g.sqlite")))
    assert [one.disposition for one in found] == [
        "kept", "error", "malformed", "malformed", "duplicate", "contaminated", "contaminated",
    ]  # fmt: skip
    assert all(one.reason for one in found)


# -- teachers -------------------------------------------------------------------------------------------------


def test_a_paraphrase_keeps_the_reference_and_needs_agreement(tmp_path: Path) -> None:
    env = environment(tmp_path)
    tasks = env.split("train")[:6]

    def reword(prompt: Prompt, index: int) -> str:
        original = prompt.messages[-1].content.split("Message: ")[1].split("\n")[0]
        return f'Rewritten message: "Could you settle {original.lower()[:-1]} for me?"'

    made = paraphrases(ScriptedPolicy(reword), tasks, 1, temperature=0.5, seed=0, cache=Cache(tmp_path / "p.sqlite"))
    assert [one.row and one.row["reference"] for one in made] == [task.reference for task in tasks]
    # Three of four answers agree for the first three tasks, two of four for the others.
    good = {one.row["messages"][-1]["content"]: task for one, task in zip(made[:3], tasks, strict=False) if one.row}
    other = {"YES": "NO", "NO": "MAYBE", "MAYBE": "YES"}
    by_text = {one.row["messages"][-1]["content"]: task for one, task in zip(made, tasks, strict=True) if one.row}

    def answer(prompt: Prompt, index: int) -> str:
        text = prompt.messages[-1].content
        right = by_text[text].reference
        return right if index < (3 if text in good else 2) else other[right]

    found = screened(env, tmp_path, made, answer)
    assert [one.disposition for one in found] == ["kept"] * 3 + ["no_agreement"] * 3
    assert [(one.agreed, one.samples) for one in found] == [(3, 4)] * 3 + [(2, 4)] * 3
    line = entry(env, found[0])
    assert line.seed_id == tasks[0].id and line.source == "paraphrase" and line.evidence == "reference kept"
    assert found[0].task and found[0].task.group == tasks[0].group and found[0].task.origin == "synthetic"
    assert agreement(found) == {"3 of 4": 3}


def test_a_question_takes_the_answer_that_most_agree_on(tmp_path: Path) -> None:
    env = environment(tmp_path)
    answers = {
        "Is the sky green?": ["NO", "NO.", " no", "YES"],
        "Is it late?": ["YES", "NO", "YES", "NO"],
        "Who are you?": ["I am", "me", "you", "we"],
        "Silent?": ["", "", "", ""],
    }
    found = screened(
        env, tmp_path, [proposed(q) for q in answers], lambda prompt, index: answers[prompt.messages[-1].content][index]
    )
    assert [one.disposition for one in found] == ["kept"] + ["no_agreement"] * 3
    assert found[2].reason.startswith("no answer serves as a reference: unknown label")
    assert found[0].task and found[0].task.reference == "NO" and found[0].agreed == 3
    assert found[0].task.split == "train"


def test_teachers_write_questions_after_examples_of_training_tasks_alone(tmp_path: Path) -> None:
    env = environment(tmp_path)
    seen: list[str] = []

    def teacher(prompt: Prompt, index: int) -> str:
        seen.append(prompt.messages[-1].content)
        return "" if len(seen) == 2 else "Is it so?"

    made = questions(env, ScriptedPolicy(teacher), 5, temperature=0.5, seed=0, cache=Cache(tmp_path / "q.sqlite"))
    train = {task.messages[-1].content for task in env.split("train")}
    for text in seen:
        shown = [line[2:] for line in text.split("\n") if line.startswith("- ")]
        assert len(shown) == 4 and set(shown) <= train
    assert [one.problem for one in made].count("the teacher wrote nothing") == 1
    found = screened(env, tmp_path, made, lambda prompt, index: "YES")
    assert [one.disposition for one in found] == ["kept", "malformed", "duplicate", "duplicate", "duplicate"]


def test_what_was_cut_off_is_no_task(tmp_path: Path) -> None:
    cut = Proposal(source="question", text="Is it", row=proposed("Is it").row, truncated=True)
    assert screened(environment(tmp_path), tmp_path, [cut])[0].disposition == "truncated"


def test_a_teacher_s_question_near_a_held_out_one_is_contaminated(tmp_path: Path) -> None:
    secret = "my card was swallowed by the machine at the corner of the main street"
    rows = [row("Question 1?", "YES", split="train"), row(secret, "NO", split="test")]
    env = environment(tmp_path, rows=rows)
    (one,) = screened(env, tmp_path, [proposed(secret + " today")])
    assert one.disposition == "contaminated" and one.overlap and one.overlap > 0.9
    assert one.duplicate_of == env.split("test")[0].id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  Where is it? ", "Where is it?"), ('"Where is it?"', "Where is it?"), ("“Where is it?”", "Where is it?"),
        ("Question: Where is it?", "Where is it?"), ('He said "yes" and "no"', 'He said "yes" and "no"'),
        ('"a" or "b"', '"a" or "b"'), ('"', '"'), ("", ""),
    ],
)  # fmt: skip
def test_tidy(text: str, message: str) -> None:
    assert tidy(text) == message


# -- answers, bands, ledger -----------------------------------------------------------------------------------


def test_bands_are_the_student_s_and_the_ledger_adds_up(tmp_path: Path) -> None:
    env = environment(tmp_path)
    tasks, _ = authored(env, 30, held_out([env]), 0)
    right = {one.task.messages[-1].content: one.task.reference for one in tasks}
    # Of eight answers to each of ten tasks: mostly none is right or all are, so one that is half right stands out.
    order = {text: (0, 0, 8, 8, 0, 0, 4, 8, 0, 0)[i % 10] for i, text in enumerate(right)}

    def student(prompt: Prompt, index: int) -> str:
        text = prompt.messages[-1].content
        return right[text] if index < order[text] else "hm"

    cache = Cache(tmp_path / "c.sqlite")
    found = verify_answers(
        env, ScriptedPolicy(lambda p, i: right[p.messages[-1].content], "teacher"),
        DataSettings(samples=2, band_samples=8), tasks,
        train_demonstrations=0, seed=0, cache=cache, student=ScriptedPolicy(student, "student"),
    )  # fmt: skip
    bands = {0: "too_hard", 4: "signal", 8: "too_easy"}
    assert [one.band for one in found.tasks] == [bands[count] for count in order.values()]
    assert [one.passes.rate for one in found.tasks] == [count / 8 for count in order.values()]
    assert ledger.counts(found.ledger, "task") == {"too_hard": 18, "kept": 3, "too_easy": 9}
    assert found.dispositions == {"kept": 30, "duplicate": 30}
    ledger.check(found.ledger)


def test_of_right_answers_the_shortest_is_kept_and_others_that_differ(tmp_path: Path) -> None:
    env = environment(tmp_path, grader=CONTAINS)
    tasks, _ = authored(env, 1, held_out([env]), 0)
    right = tasks[0].task.reference
    said = [f"After much thought about it I say {right}", right, f"{right}.", "hm"]
    found = verify_answers(
        env, ScriptedPolicy(lambda p, i: said[i]), DataSettings(samples=4), tasks,
        train_demonstrations=0, seed=0, cache=Cache(tmp_path / "c.sqlite"),
    )  # fmt: skip
    fates = [line.disposition for line in found.ledger if line.kind == "answer"]
    assert fates == ["kept", "kept", "duplicate", "wrong"]
    assert [e.completion for e in found.examples] == [said[0], right]


def test_a_training_task_that_is_a_test_task_is_left_out(tmp_path: Path) -> None:
    rows = [row(f"Question {i}?", "YES", split="train") for i in range(4)]
    rows.append(row("question 2", "YES", split="test"))
    env = environment(tmp_path, rows=rows)
    tasks, lines = authored(env, 10, held_out([env]), 0)
    assert len(tasks) == 3 and [line.disposition for line in lines] == ["contaminated"]
    assert lines[0].duplicate_of == env.split("test")[0].id


def test_a_candidate_with_two_dispositions_is_a_bug(tmp_path: Path) -> None:
    line = Entry(kind="task", id="x" * 64, skill="s", source="authored", disposition="kept", reason="")
    ledger.check([line, Entry(**{**line.as_row(), "kind": "answer"})])
    with pytest.raises(RunError, match="2 dispositions"):
        ledger.check([line, line])


def test_no_teacher_s_answer_stands_in_as_a_reference(tmp_path: Path) -> None:
    env = environment(tmp_path)
    found = screened(env, tmp_path, [proposed("Is it so, then?")], lambda p, i: "YES")
    tasks = [Sourced(task=one.task, source="question", screened=one) for one in found if one.task]
    got = verify_answers(
        env, ScriptedPolicy(lambda p, i: "hm"), DataSettings(samples=2), tasks,
        train_demonstrations=0, seed=0, cache=Cache(tmp_path / "v.sqlite"),
    )  # fmt: skip
    assert got.examples == () and got.dispositions == {"wrong": 2}


def test_a_grader_that_fails_on_some_answers_is_an_error_of_the_question(tmp_path: Path) -> None:
    source = "def grade(sample, item):\n    assert sample['output_text'] != 'NO'\n    return sample['output_text'] == item['reference']"  # noqa: E501
    env = environment(tmp_path, grader={"type": "python", "name": "p", "source": source})
    (one,) = screened(env, tmp_path, [proposed("Is it late?")], lambda prompt, index: "NO" if index == 3 else "YES")
    assert one.disposition == "error" and "AssertionError" in one.reason


def test_where_messages_are_lines_the_first_line_is_the_message(tmp_path: Path) -> None:
    env = environment(tmp_path)
    task = env.split("train")[0]

    def reworded(text: str, stop: Any) -> tuple[str, bool]:
        class Talks(ScriptedPolicy):
            def sample(self, *arguments: Any) -> Any:
                return (replace(rollout, stop=stop) for rollout in super().sample(*arguments))

        cache = Cache(tmp_path / f"{stop}{len(text)}.sqlite")
        policy = Talks(lambda prompt, index: text)
        (one,) = paraphrases(policy, [task], 1, temperature=0.5, seed=0, cache=cache)
        assert one.row is not None
        return one.row["messages"][-1]["content"], one.truncated

    assert reworded('"Is it 3?"\nI hope that this hel', "length") == ("Is it 3?", False)
    assert reworded("Is it 3, or is it ra", "length") == ("Is it 3, or is it ra", True)
    assert reworded("Message: Is it 3?", "eos") == ("Is it 3?", False)


# -- what a second pair of eyes found ---------------------------------------------------------------------------


def test_a_generated_row_without_reference_is_none_and_other_names_for_it_count(tmp_path: Path) -> None:
    source = """
def tasks(seed):
    yield {"messages": [{"role": "user", "content": "Is it red?"}]}
    yield {"messages": [{"role": "user", "content": "Is it blue?"}], "answer": "NO"}
"""
    equal = CONTAINS | {"operation": "eq"}
    env = environment(tmp_path, source, grader=equal)
    found = screened(env, tmp_path, from_generator(env.skill, 5, 0, Cache(tmp_path / "g.sqlite")))
    fates = [(one.disposition, one.task and one.task.reference) for one in found]
    assert fates == [("malformed", None), ("kept", "NO")]


def test_rows_that_json_cannot_hold_are_malformed_and_no_traceback(tmp_path: Path) -> None:
    fields = ['"\\ud800"', "{1, 2}", "b'x'", "float('nan')", "10**5000"]
    rows = "".join(
        f'    yield {{"messages": [{{"role": "user", "content": "q{i}"}}], "reference": "YES", "more": {value}}}\n'
        for i, value in enumerate(fields)
    )
    source = f"def tasks(seed):\n{rows}    yield {{1: 2, 'messages': 10**5000}}\n    yield 10**5000\n"
    env = environment(tmp_path, source)
    made = from_generator(env.skill, 20, 0, Cache(tmp_path / "g.sqlite"))
    assert len(made) == 7 and all(one.row is None and one.problem for one in made)
    assert {one.disposition for one in screened(env, tmp_path, made)} == {"malformed"}


def test_what_a_generator_drew_is_kept(tmp_path: Path) -> None:
    source = "import random\ndef tasks(seed):\n    while True:\n        yield {'n': random.random()}\n"
    env, cache = environment(tmp_path, source), Cache(tmp_path / "g.sqlite")
    assert from_generator(env.skill, 3, 0, cache) == from_generator(env.skill, 3, 0, cache) != []
    assert from_generator(env.skill, 3, 0, cache) != from_generator(env.skill, 3, 1, cache)


def test_a_row_s_own_answer_must_pass_though_the_grader_reads_no_reference(tmp_path: Path) -> None:
    lower = {"type": "regex", "name": "lower", "input": "{{sample.output_text}}", "pattern": "^[a-z]+$"}
    env = environment(tmp_path, rows=[row("Q?", "fine", split="train"), row("R?", "fine", split="test")], grader=lower)
    (one,) = screened(env, tmp_path, [proposed("Say it", reference="NOT 123")], lambda prompt, index: "fine")
    assert one.disposition == "wrong" and one.reason.startswith("its own answer: ")


def test_answers_that_were_cut_off_do_not_agree(tmp_path: Path) -> None:
    class CutOff(ScriptedPolicy):
        def sample(self, *arguments: Any) -> Any:
            return (replace(r, stop="length" if r.index else "eos") for r in super().sample(*arguments))

    env = environment(tmp_path)
    (one,) = screen(
        env, [proposed("Is it so?", reference="YES")], Known.of([env], env), CutOff(lambda prompt, index: "YES"),
        samples=4, needed=2, seed=0, cache=Cache(tmp_path / "c.sqlite"),
    )  # fmt: skip
    assert (one.disposition, one.agreed) == ("no_agreement", 1)


def test_a_duplicate_names_the_task_that_was_kept(tmp_path: Path) -> None:
    env = environment(tmp_path)
    first, second = screened(env, tmp_path, [proposed("Is it so?"), proposed("is it SO")], lambda p, i: "YES")
    assert first.task and second.duplicate_of == first.task.id == entry(env, first).id
