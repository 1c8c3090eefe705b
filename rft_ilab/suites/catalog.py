"""The suites that come with the package: what is asked, how answers are graded, whose work they are.

Their rows lie in ``data/NAME.jsonl.gz``; ``tools/make_suites.py`` made them. A row of ``kind`` K is asked with K's
instruction as the system turn (none if it is empty) and graded by K's grader; a suite of one kind has the kind "".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OUTPUT, REFERENCE = "{{sample.output_text}}", "{{item.reference}}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of asking and grading. ``grader`` is an object of the project's grammar (``docs/grader-types.md``)."""

    instruction: str
    grader: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """``max_tokens`` cuts an answer off; ``answer_tokens`` is about what one takes, for estimates.

    ``grouped`` names what the rows of a cluster share, empty if each stands for itself.
    """

    title: str
    licence: str
    origin: str
    kinds: Mapping[str, Kind]
    max_tokens: int
    answer_tokens: int
    grouped: str = ""

    @property
    def graders(self) -> str:
        """The grader types for people, each once."""
        return ", ".join(dict.fromkeys(str(kind.grader["type"]) for kind in self.kinds.values()))


def _label(*labels: str) -> Kind:
    grader = {"type": "label", "input": OUTPUT, "reference": REFERENCE, "labels": list(labels)}
    return Kind(f"Answer with {' or '.join(labels)} and nothing else.", grader)


def _text(instruction: str, rule: str, reference: str = REFERENCE, **more: Any) -> Kind:
    grader = {"type": "text_match", "input": OUTPUT, "reference": reference, "rule": rule, "score": "equal"}
    return Kind(instruction, {**grader, **more})


LETTERS = [f"({letter})" for letter in "ABCDEFGHIJKLMNOPQR"]
OPTION = Kind(
    "Answer with the letter of the right option in parentheses, such as (B), and nothing else.",
    {
        "type": "multi",
        "graders": {
            "letter": {"type": "label", "input": OUTPUT, "reference": REFERENCE, "labels": LETTERS},
            # "(B) a kite" and "a kite" name option (B), too.
            "option": _text("", "lower", "{{item.accepted}}", alternatives=True).grader,
        },
        "calculate_output": "max(letter, option)",
    },
)
NUMBER = {"type": "number", "input": OUTPUT, "reference": REFERENCE}

# The generators of reasoning-gym that the suite was made with; each has a scorer of its own.
GENERATORS = (
    "base_conversion", "basic_arithmetic", "caesar_cipher", "calendar_arithmetic", "chain_sum", "count_bits",
    "count_primes", "family_relationships", "fraction_simplification", "gcd", "leg_counting", "letter_counting",
    "number_filtering", "number_sorting", "propositional_logic", "simple_equations", "spell_backward", "syllogism",
    "time_intervals", "word_sorting",
)  # fmt: skip


def _generator(dataset: str) -> Kind:
    grader = {"type": "reasoning_gym", "input": OUTPUT, "dataset": dataset, "entry": "{{item.entry}}"}
    return Kind("Answer with the final answer and nothing else.", grader)


SUITES: Mapping[str, Definition] = {
    "bbh": Definition(
        title="BIG-Bench Hard: 40 rows of each of its 27 tasks, answered without reasoning",
        licence="MIT",
        origin="suzgunmirac/BIG-Bench-Hard (arXiv 2210.09261)",
        grouped="task",
        max_tokens=96,
        answer_tokens=30,
        kinds={
            "option": OPTION,
            "yes_no": _label("Yes", "No"),
            "truth": _label("True", "False"),
            "validity": _label("valid", "invalid"),
            "number": Kind("Answer with the number and nothing else.", NUMBER),
            "words": _text("Answer with the sorted words and nothing else.", "squad"),
            "brackets": _text(
                "Answer with the missing brackets and nothing else.",
                "exact",
                "{{item.accepted}}",
                alternatives=True,
            ),
        },
    ),
    "gsm8k": Definition(
        title="GSM8K: grade-school word problems, the whole test set",
        licence="MIT",
        origin="openai/grade-school-math (arXiv 2110.14168)",
        max_tokens=320,
        answer_tokens=170,
        # "20 %" answers the question how many per cent.
        kinds={"": Kind("Solve the problem step by step. End with the answer.", {**NUMBER, "percent": "ignore"})},
    ),
    "ifeval": Definition(
        title="IFEval: prompts with instructions that can be verified, all followed or not (strict)",
        licence="Apache-2.0 and CC-BY-4.0",
        origin="google-research/instruction_following_eval (arXiv 2311.07911)",
        max_tokens=1024,
        answer_tokens=400,
        kinds={"": Kind("", {"type": "ifeval", "input": OUTPUT})},
    ),
    "reasoning_gym": Definition(
        title="reasoning-gym: 40 puzzles of each of 20 generators, answered without reasoning",
        licence="Apache-2.0",
        origin="open-thought/reasoning-gym 0.1.25 (arXiv 2505.24760)",
        grouped="generator",
        max_tokens=128,
        answer_tokens=60,
        kinds={name: _generator(name) for name in GENERATORS},
    ),
}
