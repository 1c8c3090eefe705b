"""Open-Instruct's verifiers as graders of ours: which grader, what becomes of the label, which answer is surely
right.

A verifier that has no equal is in ``REFUSED`` with the reason. docs/open-instruct-rewards.md has the table, with how
often the two agree and where they differ. Source: ``open_instruct/ground_truth_utils.py``, e6c3044a (2026-08-20).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rft_ilab.grading.checks.number import last_number
from rft_ilab.grading.checks.text_match import normalise
from rft_ilab.scaleout.openinstruct.instructions import ifeval_instructions, old_instructions

ANSWER = "{{sample.output_text}}"
GOLD = "{{item.gold}}"
MATCH = {"type": "text_match", "input": ANSWER, "reference": GOLD, "rule": "squad", "score": "equal"}
FINISH = {"after": "<finish>", "before": "</finish>", "alternatives": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """``gold`` makes a field of the task from a label (ValueError if it cannot); the grader reads ``{{item.gold}}``.

    ``reference`` makes an answer that is right from ``gold``; None where no label tells one. ``task`` says what to
    do.
    """

    grader: Mapping[str, Any]
    gold: Callable[[Any], Any]
    reference: Callable[[Any], str] | None
    task: str


def _text(label: Any) -> str:
    text = str(label).strip()
    if not text:
        raise ValueError("the label is empty")
    return text


def _words(label: Any) -> str:
    text = _text(label)
    if not normalise(text, "squad"):
        raise ValueError("nothing is left of the label without case, punctuation and articles")
    return text


def _number(label: Any) -> str:
    text = _text(label)
    found = last_number(text, "ignore")
    if found is None or found[1] is None:
        raise ValueError(f"the label {text[:40]!r} has no number")
    return text


def _texts(label: Any) -> list[str]:
    """A list of texts: a JSON list, or a single text."""
    if isinstance(label, str):
        try:
            label = json.loads(label)
        except ValueError:
            label = label.strip()
    return _some_words(label)


def _some_words(label: Any) -> list[str]:
    texts = [_words(each) for each in (label if isinstance(label, list) else [label])]
    if not texts:
        raise ValueError("the label is empty")
    return texts


def _tests(label: Any) -> list[str]:
    try:
        tests = json.loads(label) if isinstance(label, str) else label
    except ValueError as error:
        raise ValueError("the label is no JSON list of tests (pickled tests are not read)") from error
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise ValueError("the label is no list of Python tests")
    for test in tests:
        try:
            ast.parse(test)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise ValueError(f"a test is not Python: {str(error)[:60]}") from error
    return tests


def _same(gold: Any) -> str:
    return str(gold)


def _tagged(tag: str) -> Callable[[Any], str]:
    return lambda gold: f"<{tag}>{gold if isinstance(gold, str) else gold[0]}</{tag}>"


MAPPED: Mapping[str, Mapped] = {
    "gsm8k": Mapped(
        grader={"type": "number", "input": ANSWER, "reference": GOLD, "percent": "ignore"},
        gold=_number, reference=_same, task="Solve the problem. End with the answer as a number.",
    ),
    "math": Mapped(
        grader={"type": "math", "input": ANSWER, "reference": GOLD},
        gold=_text, reference=lambda gold: f"\\boxed{{{gold}}}", task="Solve the problem. Put the answer in \\boxed{}.",
    ),
    "strict_math": Mapped(
        grader={"type": "math", "input": ANSWER, "reference": GOLD},
        gold=_text, reference=lambda gold: f"Final Answer: The final answer is ${gold}$. I hope it is correct.",
        task="Solve the problem. End with: Final Answer: The final answer is $ANSWER$. I hope it is correct.",
    ),
    "flan": Mapped(
        grader={**MATCH, "after": "The answer is: ", "bare": True},
        gold=_words, reference=lambda gold: f"The answer is: {gold}", task="End with: The answer is: ANSWER",
    ),
    "string_matcher": Mapped(
        grader={**MATCH, "after": "<answer>", "before": "</answer>"},
        gold=_words, reference=_tagged("answer"), task="Write the answer between <answer> and </answer>.",
    ),
    "puzzle": Mapped(grader={**MATCH, "tags": True}, gold=_words, reference=_same, task="Reply with the answer only."),
    "string_f1": Mapped(
        grader={**MATCH, "score": "f1", "tags": True, "alternatives": True},
        gold=_some_words, reference=lambda gold: gold[0], task="Reply with the answer only.",
    ),
    "re_search": Mapped(
        grader={**MATCH, **FINISH}, gold=_texts, reference=_tagged("finish"),
        task="Write the answer between <finish> and </finish>.",
    ),
    "re_search_f1": Mapped(
        grader={
            "type": "multi", "calculate_output": "max(f1, 0.1 * form)",
            "graders": {
                "f1": {**MATCH, **FINISH, "score": "f1"},
                "form": {
                    "type": "regex", "input": ANSWER, "pattern": "<finish>.+</finish>", "full": False, "flags": "s",
                },
            },
        },
        gold=_texts, reference=_tagged("finish"), task="Write the answer between <finish> and </finish>.",
    ),
    "ifeval": Mapped(
        grader={"type": "ifeval", "input": ANSWER, "instructions": GOLD, "score": "share"},
        gold=ifeval_instructions, reference=None, task="Follow the instructions.",
    ),
    "ifeval_old": Mapped(
        grader={"type": "ifeval", "input": ANSWER, "instructions": GOLD, "score": "share"},
        gold=old_instructions, reference=None, task="Follow the instructions.",
    ),
    "code": Mapped(
        grader={"type": "code", "input": ANSWER, "tests": GOLD, "partial": True},
        gold=_tests, reference=None, task="Write the Python code that is asked for, in one fenced block.",
    ),
}  # fmt: skip

JUDGED = "a language model judges it with Open-Instruct's own prompt; write a score_model grader by hand"
REFUSED: Mapping[str, str] = {
    "code_stdio": "programs that read input and print are not run here",
    "max_length": "it counts the trainer's tokens, which a grader does not see",
    "up_to_max_length": "it counts the trainer's tokens, which a grader does not see",
    "rubric": JUDGED,
    "passthrough": "it gives every answer the same reward",
}


def combined(names: Sequence[str]) -> Mapped:
    """Several verifiers at once: the mean of their scores (Open-Instruct adds them). Raises ValueError.

    ``gold`` takes the list of their labels; part number n reads ``{{item.gold[n]}}``.
    """
    for name in names:
        if (reason := refusal(name)) is not None:
            raise ValueError(f"{name}: {reason}")
    parts = [MAPPED[name] for name in names]
    if len(parts) == 1:
        (one,) = parts
        return replace(one, gold=lambda labels: one.gold(labels[0]))
    if any(part.grader["type"] == "multi" for part in parts):
        raise ValueError("re_search_f1 is a formula of two graders already, and cannot be part of another")
    graders = {
        f"{name}_{n}": {
            key: f"{{{{item.gold[{n}]}}}}" if value == GOLD else value for key, value in part.grader.items()
        }
        for n, (name, part) in enumerate(zip(names, parts, strict=True))
    }
    formula = f"({' + '.join(graders)}) / {len(graders)}"
    return Mapped(
        grader={"type": "multi", "calculate_output": formula, "graders": graders},
        gold=lambda labels: [part.gold(label) for part, label in zip(parts, labels, strict=True)],
        reference=None,
        task=" ".join(dict.fromkeys(part.task for part in parts)),
    )


def refusal(name: str) -> str | None:
    """Why a verifier cannot be had here; None if it can."""
    name = name.lower()
    if name in MAPPED:
        return None
    return REFUSED.get(name) or (JUDGED if name.startswith("general-") else "no verifier of Open-Instruct")
