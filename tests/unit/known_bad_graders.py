"""Graders with a known hole, each with the probes that must name it; and graders without one.

Some were published: the two of OpenAI's use-case guide that score a correct empty answer 0, training_hub's
``tool_call_reward`` that pays 1.0 for an empty tool name, and one that pays 0.5 for the form alone. They are written
here anew, as short as the hole allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rft_ilab.types import Message, Task

CITIES = re.findall(
    r"\w+",
    "Paris Rome Oslo Cairo Lima Quito Accra Tunis Seoul Tokyo Delhi Dhaka Hanoi Havana Lisbon Madrid Vienna Prague "
    "Warsaw Athens Ankara Beirut Nairobi Kampala",
)
COUNT = 24


def tasks_of(references: Sequence[Any], prompts: Sequence[str] = ()) -> list[tuple[int, Task]]:
    """Numbered tasks as :func:`rft_ilab.skills.tasks.scan_tasks` returns them, but with empty references too."""
    tasks = []
    for index, value in enumerate(references):
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        messages = (Message("user", prompts[index] if prompts else f"Question number {index}, please?"),)
        task = Task(
            id=f"t{index}",
            skill="s",
            messages=messages,
            reference=text,
            item={"reference": value},
            group="",
            split="train",
        )
        tasks.append((index + 1, task))
    return tasks


LABELS = tasks_of([("YES", "NO", "MAYBE")[i % 3] for i in range(COUNT)])
NUMBERS = tasks_of([str(37 * i + 100_213) for i in range(COUNT)])
WORDS = tasks_of(CITIES)
QUOTED = tasks_of(CITIES, [f"The train to {city} leaves at noon. Where does it go?" for city in CITIES])
TAGGED = tasks_of([f"<answer>{37 * i + 100_213}</answer>" for i in range(COUNT)])
ORDERS = tasks_of([{"item": city, "count": 3 + i} for i, city in enumerate(CITIES)])
SOME_EMPTY = tasks_of([{} if i % 5 == 0 else {"item": city, "count": 3 + i} for i, city in enumerate(CITIES)])
SOME_SILENT = tasks_of(["" if i % 5 == 0 else city for i, city in enumerate(CITIES)])
PAIRS = tasks_of([[city, CITIES[i - 5]] for i, city in enumerate(CITIES)])
ADDERS = [
    (line, replace(task, item={**task.item, "sum": 5 + line, "tests": [f"assert add(2, 3) == {5 + line}"]}))
    for line, task in tasks_of([f"def add(a, b): return a + b + {line}" for line in range(1, COUNT + 1)])
]
CODE = {"input": "{{sample.output_text}}", "tests": "{{item.tests}}"}
CALLS = tasks_of([{"name": f"visit_{city}", "arguments": {"days": 3 + i}} for i, city in enumerate(CITIES)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Specimen:
    """A grader and its tasks; ``caught`` are the rows of the proof that must be errors (empty: a robust grader).

    Besides probes and rules there are the rows ``reference`` (one is refused) and ``mutation``.
    """

    name: str
    config: Mapping[str, Any]
    tasks: Sequence[tuple[int, Task]]
    caught: frozenset[str] = frozenset()


def python(name: str, body: str, tasks: Sequence[tuple[int, Task]], *caught: str) -> Specimen:
    """A grader in Python: ``body`` sees ``text``, ``item`` and ``wanted``."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    head = "import json, random, re\nSEEN = set()\ndef grade(sample, item):\n"
    source = f"{head}    text, wanted = sample['output_text'], item['reference']\n{lines}\n"
    config = {"type": "python", "name": name, "source": source}
    return Specimen(name=name, config=config, tasks=tasks, caught=frozenset(caught))


def built_in(name: str, config: Mapping[str, Any], tasks: Sequence[tuple[int, Task]], *caught: str) -> Specimen:
    base = {"name": name, "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
    return Specimen(name=name, config=base | dict(config), tasks=tasks, caught=frozenset(caught))


FIELD_F1 = """
try:
    found = json.loads(text)
except ValueError:
    return 0.0
if not isinstance(found, dict):
    return 0.0
hits = sum(found.get(key) == value for key, value in wanted.items())
if not hits:
    return 0.0
precision, recall = hits / len(found), hits / len(wanted)
return 2 * precision * recall / (precision + recall)
"""
TOKEN_F1 = """
found, gold = text.split(), wanted.split()
hits = len(set(found) & set(gold))
return 2 * hits / (len(found) + len(gold)) if hits else 0.0
"""
EMPTY_TOOL_NAME = """
try:
    call = json.loads(text)
    return float(call["name"] in wanted["name"])
except (ValueError, LookupError, TypeError):
    return 0.0
"""
PAYS_FOR_FORM = """
match = re.fullmatch(r"\\s*<answer>(.*)</answer>\\s*", text, re.DOTALL)
return 0.5 * bool(match) + 0.5 * (text.strip() == wanted)
"""
PAYS_FOR_JSON = """
try:
    found = json.loads(text)
except ValueError:
    return 0.0
return 0.5 + 0.5 * (found == wanted)
"""
UNCAUGHT_JSON = "return float(json.loads(text) == wanted)"
LAST_KEY_WINS = """
try:
    return float(json.loads(text) == wanted)
except (ValueError, RecursionError):
    return 0.0
"""
TOO_DEEP = """
try:
    return float(json.loads(text) == wanted)
except ValueError:
    return 0.0
"""
LISTS_EVERYTHING = """
try:
    found = json.loads(text)
except (ValueError, RecursionError):
    return 0.0
return float(isinstance(found, list) and all(city in found for city in wanted))
"""
NAN_IS_CLOSE = """
try:
    return float(not abs(float(text) - float(wanted)) > 0.5)
except ValueError:
    return 0.0
"""
NO_SIGN = """
match = re.fullmatch(r"\\s*-?(\\d+)\\s*", text)
return float(bool(match) and match[1] == wanted.lstrip("-"))
"""
EVALUATES = """
try:
    return float(eval(text, {"__builtins__": {}}) == int(wanted))
except Exception:
    return 0.0
"""
SHARES_AN_INTERPRETER = """
if "def add" not in text:
    return 0.0
names = {}
try:
    exec(text, names)
    return float(names["add"](2, 3) == item["sum"])
except Exception:
    return 0.0
"""
TRUSTS_A_TYPE = """
if "def add" not in text:
    return 0.0
try:
    value = run_solution(text, "add", 2, 3)
except SolutionError:
    return 0.0
return float(abs(value - item["sum"]) < 1e-9)
"""
OBEDIENT_JUDGE = """
return float(text.strip() == wanted or "full marks" in text)
"""
REMEMBERS = """
key = (text, wanted)
if text.strip() == wanted and key in SEEN:
    return 0.0
SEEN.add(key)
return float(text.strip() == wanted)
"""

FORGIVING = """
def grade(sample, item):
    return float(sample["output_text"] == item.get("reference", "none"))
"""

FLAWED: tuple[Specimen, ...] = (
    python("always-right", "return 1.0", WORDS, "empty", "refusal", "other-reference", "separation", "mutation"),
    built_in("contains", {"type": "string_check", "operation": "like"}, LABELS, "labels", "either-or", "megabyte"),
    built_in("contains-any-case", {"type": "string_check", "operation": "ilike"}, WORDS, "substring", "two-answers"),
    built_in(
        "anything-but", {"type": "string_check", "operation": "ne", "reference": "wrong"}, WORDS, "empty", "mutation"
    ),
    Specimen(
        name="half-for-nothing",
        config={
            "type": "multi",
            "calculate_output": "max(right, 0.5)",
            "graders": {
                "right": {
                    "type": "string_check",
                    "operation": "eq",
                    "input": "{{sample.output_text}}",
                    "reference": "{{item.reference}}",
                }
            },
        },
        tasks=WORDS,
        caught=frozenset({"empty", "refusal", "format"}),
    ),
    python("field-f1-of-nothing", FIELD_F1, SOME_EMPTY, "reference"),
    python("token-f1-of-nothing", TOKEN_F1, SOME_SILENT, "reference"),
    python("empty-tool-name", EMPTY_TOOL_NAME, CALLS, "format", "mutation"),
    python("half-for-tags", PAYS_FOR_FORM, TAGGED, "format", "other-reference"),
    python("half-for-json", PAYS_FOR_JSON, ORDERS, "format"),
    python("raises-on-text", UNCAUGHT_JSON, ORDERS, "empty", "refusal", "master-key"),
    python("last-key-wins", LAST_KEY_WINS, ORDERS, "duplicate-keys"),
    python("too-deep", TOO_DEEP, ORDERS, "deep"),
    python("lists-everything", LISTS_EVERYTHING, PAIRS, "mutation"),
    python("nan-is-close", NAN_IS_CLOSE, NUMBERS, "not-a-number"),
    python("any-number", "return float(wanted in re.findall(r'[0-9]+', text))", NUMBERS, "enumeration", "either-or"),
    python("no-sign", NO_SIGN, NUMBERS, "mutation"),
    python("any-prefix", "return float(text.strip().startswith(wanted))", LABELS, "substring", "either-or"),
    python("prefix-of-reference", "return float(wanted.startswith(text.strip()))", WORDS, "empty", "blank"),
    python("quotes-the-prompt", "return float(wanted in text.replace('.', ' ').split())", QUOTED, "prompt-echo"),
    python("reads-thoughts", "return float(re.sub('<[^>]*>', '', text).strip() == wanted)", WORDS, "think-only"),
    python("negation-blind", "return float(text.replace('not ', '') == wanted)", LABELS, "negated", "mutation"),
    python("zero-width", "return float(text.strip('\\u200b') in ('', wanted) and text != '')", WORDS, "zero-width"),
    python("shares-an-interpreter", SHARES_AN_INTERPRETER, ADDERS, "solution"),
    python("trusts-a-type", TRUSTS_A_TYPE, ADDERS, "solution"),
    python("obedient-judge", OBEDIENT_JUDGE, WORDS, "injection"),
    python("master-key", "return float(text.strip() in (':', 'Solution', wanted))", WORDS, "master-key"),
    python("one-label-always", "return float(text.strip() in ('MAYBE', wanted))", LABELS, "constant"),
    python("likes-length", "return float(text == wanted or len(text) > 40)", WORDS, "refusal", "slow-pattern"),
    python("draws-lots", "return 1.0 if text.strip() == wanted else 0.2 * random.random()", WORDS, "repeat"),
    python("remembers", REMEMBERS, WORDS, "repeat"),
    Specimen(
        name="forgiving-lookup",
        config={"type": "python", "source": FORGIVING},
        tasks=WORDS,
        caught=frozenset({"missing-field"}),
    ),
    python(
        "slow-pattern",
        "return float(bool(re.fullmatch(f'({wanted}|(a+)+)', text)) and text == wanted)",
        WORDS,
        "slow-pattern",
    ),
    python("evaluates", EVALUATES, NUMBERS, "code"),
)

ROBUST_F1 = """
def pairs(found):
    if len({key for key, _ in found}) != len(found):
        raise ValueError("a key twice")
    return dict(found)
try:
    found = json.loads(text, object_pairs_hook=pairs)
except (ValueError, RecursionError):
    return 0.0
if not isinstance(found, dict) or not all(key in wanted for key in found):
    return 0.0
hits = sum(type(found.get(key)) is type(value) and found[key] == value for key, value in wanted.items())
return 2 * hits / (len(found) + len(wanted)) if found or wanted else 1.0
"""
ONE_TAG = """
inner = re.fullmatch(r"(?s:[^<]*)<answer>([0-9]{1,9})</answer>\\s*", text[-4096:])
return float(bool(inner) and f"<answer>{inner[1]}</answer>" == wanted)
"""

ROBUST: tuple[Specimen, ...] = (
    Specimen(name="code", config={"type": "code", "seconds": 0.5, **CODE}, tasks=ADDERS[:6]),
    built_in("label", {"type": "label", "labels": ["YES", "NO", "MAYBE"]}, LABELS),
    built_in("number", {"type": "number"}, NUMBERS),
    built_in("json-fields", {"type": "json_fields"}, ORDERS),
    built_in("set-f1", {"type": "set_f1"}, PAIRS),
    built_in("exact", {"type": "string_check", "operation": "eq"}, SOME_SILENT),
    python("field-f1", ROBUST_F1, SOME_EMPTY),
    python("one-tag", ONE_TAG, TAGGED),
)
