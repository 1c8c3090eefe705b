"""Re-grade kept rows of a run by rules written for this alone: nothing of rft_ilab's graders is used.

    python tools/audit_data.py RUN --rows 200 [--taxonomy taxonomy]

Takes rows of ``data/verified.jsonl`` at random, finds the right answer in ``tasks.jsonl`` of the skill by the text of
the question (or in what its generator made, ``data/tasks.jsonl``), and compares: dates as dates, JSON as JSON, labels
as words without case and punctuation. The last line is one JSON object; exit code 1 if a row is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def rows(path: Path) -> Iterator[Any]:
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def same(answer: str, reference: str) -> bool:
    """Whether the two say the same, by the kind of the reference."""
    if reference.startswith("{"):
        try:
            return bool(json.loads(answer) == json.loads(reference))
        except ValueError:
            return False
    if re.fullmatch(r"\d{4}-\d\d-\d\d", reference):
        return date_in(answer) == datetime.date.fromisoformat(reference)
    return re.sub(r"\W+", " ", answer).strip().casefold() == re.sub(r"\W+", " ", reference).strip().casefold()


def date_in(text: str) -> datetime.date | None:
    """The one date that stands in a text, in ISO form or as month, day and year in words."""
    text = re.sub(r"(?<=\d)(st|nd|rd|th)\b|[,.]", " ", text.strip())
    for pattern in ("%Y-%m-%d", "%B %d %Y", "%d %B %Y", "%b %d %Y", "%d %b %Y"):
        try:
            return datetime.datetime.strptime(" ".join(text.split()), pattern).date()
        except ValueError:
            continue
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--taxonomy", type=Path, default=Path("taxonomy"))
    arguments = parser.parse_args()
    truth: dict[tuple[str, str], str] = {}
    for file in arguments.taxonomy.glob("compositional_skills/*/*/tasks.jsonl"):
        skill = "/".join(file.parts[-3:-1])
        truth |= {(skill, row["messages"][-1]["content"]): row["reference"] for row in rows(file)}
    for row in rows(arguments.run / "data" / "tasks.jsonl"):
        truth[row["skill"], row["row"]["messages"][-1]["content"]] = row["row"]["reference"]
    kept = list(rows(arguments.run / "data" / "verified.jsonl"))
    chosen = random.Random(arguments.seed).sample(kept, min(arguments.rows, len(kept)))
    counts: Counter[str] = Counter()
    wrong = 0
    for row in chosen:
        *_, question, answer = row["messages"]
        facts = row["metadata"]
        reference = truth[facts["skill"], question["content"]]
        counts[f"{facts['skill']}, {facts['source']}, {facts['evidence']}"] += 1
        if not same(answer["content"], reference):
            wrong += 1
            print(f"WRONG {facts['skill']}: {question['content']!r} -> {answer['content']!r}, right is {reference!r}")
    for name, count in sorted(counts.items()):
        print(f"{count:>5}  {name}")
    print(json.dumps({"rows": len(chosen), "of": len(kept), "wrong": wrong}))
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
