"""Writes ``tests/oracle/open_instruct_scores.jsonl``: what Open-Instruct's own verifiers say of labels and answers.

cd CHECKOUT && OPEN_INSTRUCT_PYTHON .../tests/openinstruct/record_scores.py OUTPUT

Answers are labels in the shapes that models write, right and wrong; for ``ifeval`` the responses of IFEval's own unit
tests; for ``code`` the programs of Open-Instruct's unit tests (``part`` is ``unit`` there), with the share that
passes.
"""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path

ORACLE = Path(__file__).resolve().parents[1] / "oracle"
NUMBERS = ["72", "-3", "3.5", "1000", "0", "12000", "0.25", "+7", "50"]
NUMBER_SHAPES = [
    "{x}",
    "The answer is {x}.",
    "#### {x}",
    "${x}",
    "{x}%",
    "{x} dollars",
    "First 5, then {x}",
    "{x}, not 17",
    "so x = {x}.0",
    "\\boxed{{{x}}}",
    "**{x}**",
    "{x}\n",
    "<think>8</think>{x}",
    "It is 1{x}",
    "",
    "no number",
    "10-{x}",
    "{x}/1",
    "{comma}",
    "The total is ${comma}.00",
    "5 x 3 = 15 and {x} apples in 2 days",
    "{x}.",
    "-{x}",
    "{x}e0",
]
LATEX = [
    "\\frac{1}{2}",
    "3",
    "x+1",
    "\\sqrt{2}",
    "(1,2)",
    "-5",
    "2\\pi",
    "0.5",
    "\\text{blue}",
    "x^2-1",
    "10\\%",
    "1000",
]
EQUAL = {
    "\\frac{1}{2}": "0.5",
    "x+1": "1+x",
    "\\sqrt{2}": "2^{1/2}",
    "2\\pi": "\\pi+\\pi",
    "0.5": "\\dfrac{1}{2}",
    "x^2-1": "(x-1)(x+1)",
    "3": "\\frac{6}{2}",
    "1000": "1,000",
}
LATEX_SHAPES = [
    "\\boxed{{{x}}}",
    "${x}$",
    "Final Answer: The final answer is ${x}$. I hope it is correct.",
    "{x}",
    "x = {x}",
    "So we get $\\boxed{{{x}}}$.",
    "First $7$, then ${x}$ follows.",
    "\\boxed{{7}} or rather \\boxed{{{x}}}",
    "\\boxed{{{equal}}}",
    "Final Answer: The final answer is ${equal}$. I hope it is correct.",
    "\\boxed{{9}}",
    "The answer is {x}.",
    "",
    "\\boxed {x}",
    "Final Answer: The final answer is $9$. I hope it is correct.",
    "\\boxed{{{x}}} and then \\boxed{{9}}",
    "\\fbox{{{x}}}",
]
WORDS = ["Paris", "the blue whale", "New York City", "42", "a", "U.S. Senate", "O'Brien", "Ünal", "yes"]
WORD_SHAPES = [
    "{x}",
    "{low}",
    " {x}! ",
    "The {x}",
    "{x} and more",
    "The answer is: {x}",
    "The answer is: {x}.",
    "The answer is {x}",
    "The answer is: no. The answer is: {x}",
    "<answer>{x}</answer>",
    "<answer> {low}. </answer>",
    "<answer>{x}",
    "{x}</answer>",
    "<answer>no</answer> <answer>{x}</answer>",
    "<answer>{x}</answer> <answer>no</answer>",
    "<finish>{x}</finish>",
    "<finish> {low}! </finish> done",
    "<finish>no</finish><finish>{x}</finish>",
    "<finish>{x}</finish><finish>no</finish>",
    "<finish>{x}",
    "<FINISH>{x}</FINISH>",
    "<finish></finish>",
    "<think>no</think>{x}",
    "<think>{x}</think>no",
    "<think>a</think><answer>{x}</answer>",
    "",
    "no",
    "{x} {x}",
    "<|assistant|>{x}",
    "<finish>{x} of old</finish>",
]
OLD = [
    {"func_name": "verify_keywords", "keyword_list": ["walk", "dog"]},
    {"func_name": "validate_forbidden_words", "forbidden_words": ["walk", "dog"]},
    {"func_name": "validate_response_language", "language": "en"},
    {"func_name": "validate_word_constraint", "N": 10, "quantifier": "at least"},
    {"func_name": "validate_word_constraint", "N": 10, "quantifier": "at most"},
    {"func_name": "verify_sentence_constraint", "N": 3, "quantifier": "at least"},
    {"func_name": "verify_sentence_constraint", "N": 3, "quantifier": "at most"},
    {"func_name": "verify_postscript", "postscript_marker": "P.S."},
    {"func_name": "validate_placeholders", "N": 2},
    {"func_name": "verify_bullet_points", "N": 3},
    {"func_name": "validate_highlighted_sections", "N": 2},
    {"func_name": "validate_title"},
    {"func_name": "validate_json_format"},
    {"func_name": "validate_repeat_prompt", "original_prompt": "Write an email"},
    {"func_name": "validate_two_responses"},
    {"func_name": "validate_uppercase"},
    {"func_name": "validate_lowercase"},
    {"func_name": "validate_end", "end_phrase": "anything else?"},
    {"func_name": "validate_quotation"},
    {"func_name": "validate_no_commas"},
]
PUBLIC = {
    "detectable_format:exact_number_bullet_points": "detectable_format:number_bullet_lists",
    "detectable_format:minimum_number_highlighted_sections": "detectable_format:number_highlighted_sections",
    "keywords:include_keywords": "keywords:existence",
    "keywords:keyword_frequency": "keywords:frequency",
    "length_constraint:number_paragraphs": "length_constraints:number_paragraphs",
    "length_constraint:number_words": "length_constraints:number_words",
}


def shaped():
    """(verifier, label, answer)"""
    for x in NUMBERS:
        comma = f"{int(x):,}" if x.lstrip("+-").isdigit() else x
        for shape in NUMBER_SHAPES:
            yield "gsm8k", x, shape.format(x=x, comma=comma)
    for verifier in ("math", "strict_math"):
        for x in LATEX:
            for shape in LATEX_SHAPES:
                yield verifier, x, shape.format(x=x, equal=EQUAL.get(x, x))
    for verifier in ("flan", "string_matcher", "puzzle", "string_f1", "re_search", "re_search_f1"):
        for x in WORDS:
            for shape in WORD_SHAPES:
                yield verifier, x, shape.format(x=x, low=x.lower())
    calls = [json.loads(line) for line in (ORACLE / "ifeval_unit_calls.jsonl").read_text().splitlines()]
    for call in calls:
        id = PUBLIC.get(call["instruction_id"], call["instruction_id"])
        yield "ifeval", json.dumps([{"instruction_id": [id], "kwargs": [call["kwargs"] or {}]}]), call["response"]
    for label in OLD:
        for response in sorted({call["response"] for call in calls})[::6]:
            yield "ifeval_old", json.dumps(label), response


def unit_tests_of_code():
    """(tests, program, share that passes): every call in Open-Instruct's unit tests of its code verifier."""
    from open_instruct.code_utils import code_utils, test_code_utils

    found, real = [], code_utils.get_successful_tests_fast

    def recorded(program, tests, max_execution_time=1.0):
        result = real(program=program, tests=tests, max_execution_time=max_execution_time)
        found.append((tests, program, sum(result[0]) / len(result[0])))
        return result

    code_utils.get_successful_tests_fast = recorded
    names = [name for name in dir(test_code_utils) if name.endswith("Tests") and "Stdio" not in name]
    suite = unittest.TestSuite(
        unittest.defaultTestLoader.loadTestsFromTestCase(getattr(test_code_utils, name)) for name in names
    )
    unittest.TextTestRunner(stream=sys.stderr).run(suite)
    return found


def main() -> None:
    from open_instruct import ground_truth_utils as theirs

    classes = {cls: cls for cls in theirs.VerifierFunction.__subclasses__()}
    verifiers = {}
    for cls in classes:
        try:
            verifier = cls()
        except TypeError:
            continue
        verifiers[verifier.name] = verifier
    rows, left_out = [], 0
    for verifier, label, answer in shaped():
        try:
            score = verifiers[verifier]([], answer, label).score
        except Exception as error:  # noqa: BLE001 - an instruction that they lack
            left_out += 1
            print(f"left out: {verifier} {label[:60]}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        rows.append({"verifier": verifier, "label": label, "answer": answer, "expected": float(score)})
    for tests, program, share in unit_tests_of_code():
        rows.append(
            {"verifier": "code", "part": "unit", "label": json.dumps(tests), "answer": program, "expected": share}
        )
    unique = {json.dumps(row, ensure_ascii=True): None for row in rows}
    Path(sys.argv[1]).write_text("".join(f"{line}\n" for line in unique), encoding="ascii")
    print(f"{len(unique)} rows, {left_out} left out", file=sys.stderr)


if __name__ == "__main__":
    main()
