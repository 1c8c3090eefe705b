"""Ready suites from public data: one source file -> rft_ilab/suites/data/NAME.jsonl.gz and its line in MANIFEST.json.

``python tools/make_suites.py NAME SOURCE``, NAME one of gsm8k, ifeval, bbh, reasoning_gym. SOURCE has one JSON object a
line with ``id``, ``prompt``, ``answer`` and, where there are several tasks, ``task``: what upstream has (repositories
and commits: ``rft_ilab/suites/data/README.md``), one row an example, otherwise untouched. The same source gives the
same bytes. What is changed on the way:

- gsm8k: nothing; ``answer`` is the number after ``####`` of upstream's solution.
- ifeval: ``answer`` (the instructions) becomes ``instruction_id_list`` and ``kwargs``, upstream's own names. There is
  no reference: no text is the right one.
- bbh: every row gets the ``kind`` of its answer (a letter, yes or no, a number, ...), which decides how it is graded;
  answers with letters get ``accepted``, the other ways to name that option: letter and text, or the text alone, unless
  another option has the same text once case is folded; answers in brackets, the same without spaces.
- reasoning_gym: answer and metadata of the library's entry are made again (same data set, seed and index; the question
  must be the row's) and kept, since the library's scorers need them. Where an entry has no answer, the metadata's
  ``example_answer`` is the reference.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "rft_ilab" / "suites" / "data"
MANIFEST = DATA / "MANIFEST.json"
OPTION = re.compile(r"^\(([A-R])\) (.*\S)\s*$", re.MULTILINE)
LETTER = re.compile(r"\([A-R]\)")
# Of tasks without lettered options.
KINDS: Mapping[str, str] = {
    "boolean_expressions": "truth",
    "causal_judgement": "yes_no",
    "dyck_languages": "brackets",
    "formal_fallacies": "validity",
    "multistep_arithmetic_two": "number",
    "navigate": "yes_no",
    "object_counting": "number",
    "sports_understanding": "yes_no",
    "web_of_lies": "yes_no",
    "word_sorting": "words",
}

Row = dict[str, Any]


def gsm8k(row: Row) -> Row:
    return {"id": row["id"], "prompt": row["prompt"], "reference": row["answer"]}


def ifeval(row: Row) -> Row:
    instructions = row["answer"]
    return {
        "id": row["id"],
        "prompt": row["prompt"],
        "instruction_id_list": [one["instruction_id"] for one in instructions],
        "kwargs": [one["kwargs"] for one in instructions],
    }


def bbh(row: Row) -> Row:
    answer, task = row["answer"], row["task"]
    made = {"id": row["id"], "prompt": row["prompt"], "reference": answer, "group": task}
    if not LETTER.fullmatch(answer):
        compact = {"accepted": [answer, answer.replace(" ", "")]} if KINDS[task] == "brackets" else {}
        return {**made, "kind": KINDS[task], **compact}
    options = {f"({letter})": text for letter, text in OPTION.findall(row["prompt"])}
    text = options.get(answer, "")
    unique = sum(other.casefold() == text.casefold() for other in options.values()) == 1
    return {**made, "kind": "option", "accepted": [f"{answer} {text}", *([text] if unique else [])]}


def reasoning_gym(row: Row) -> Row:
    source = row["grader"]
    entry = _entries(source["dataset"], source["seed"])[source["index"]]
    if entry["question"] != row["prompt"] or entry["answer"] != row["answer"]:
        raise SystemExit(f"{row['id']}: the installed reasoning-gym makes another question")
    metadata = entry["metadata"]
    reference = row["answer"] if row["answer"] is not None else metadata["example_answer"]
    return {
        "id": row["id"],
        "prompt": row["prompt"],
        "reference": reference,
        "group": row["task"],
        "kind": source["dataset"],
        "entry": {"answer": entry["answer"], "metadata": metadata},
    }


@cache
def _entries(dataset: str, seed: int) -> list[Row]:
    from reasoning_gym import create_dataset

    return list(create_dataset(dataset, size=40, seed=seed))


CONVERTERS: Mapping[str, Callable[[Row], Row]] = {
    "bbh": bbh,
    "gsm8k": gsm8k,
    "ifeval": ifeval,
    "reasoning_gym": reasoning_gym,
}


def packed(rows: Iterable[Row]) -> tuple[bytes, bytes]:
    """The rows as JSONL and the same compressed, without a time or a name in it."""
    text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=False) + "\n" for row in rows).encode()
    return text, gzip.compress(text, 9, mtime=0)


def main(name: str, source: Path) -> None:
    raw = source.read_bytes()
    rows = [CONVERTERS[name](json.loads(line)) for line in raw.decode().splitlines()]
    text, data = packed(rows)
    (DATA / f"{name}.jsonl.gz").write_bytes(data)
    manifest = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}
    manifest[name] = {
        "rows": len(rows),
        "groups": len({row.get("group", row["id"]) for row in rows}),
        # Of the text: compressed bytes depend on the version of zlib.
        "sha256": hashlib.sha256(text).hexdigest(),
        "source_sha256": hashlib.sha256(raw).hexdigest(),
    }
    MANIFEST.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    print(f"{name}: {len(rows)} rows, {len(data):,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in CONVERTERS:
        sys.exit(f"usage: make_suites.py {'|'.join(CONVERTERS)} SOURCE")
    main(sys.argv[1], Path(sys.argv[2]))
