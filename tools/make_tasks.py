"""Regenerate the generated and authored rows of ``taxonomy/compositional_skills/*/*/tasks.jsonl``.

Deterministic: order and choice come from sha256, never from a clock or ``random``, so a second run writes the same
bytes. Rows taken from public data sets (their ``source`` is not this project) are kept as they stand in the file.

    python tools/make_tasks.py            # rewrite the files
    python tools/make_tasks.py --check    # exit 1 and name the file if a rewrite would change it
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
SKILLS = Path("taxonomy") / "compositional_skills"
TEMPLATES = Path(__file__).with_name("triage_templates.json")
SOURCE = "rft-ilab authored"
SIZES = {"train": 300, "val": 60, "test": 150}

TRIAGE_ROWS_PER_TEMPLATE = 2
TRIAGE_TEST_ROWS, TRIAGE_VAL_ROWS = 22, 12
LATER_VAL_ROWS = 12

Row = dict[str, Any]
T = TypeVar("T")


def shuffled(values: Sequence[T], salt: str) -> list[T]:
    """``values`` in the order of sha256(salt, value): the same on every machine and Python version."""
    return sorted(values, key=lambda value: hashlib.sha256(f"{salt}|{value}".encode()).hexdigest())


def index_of(text: str) -> int:
    """A stable pseudo-random number of a text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def make_row(row_id: str, question: str, reference: str, group: str, split: str, origin: str = "generated") -> Row:
    return {
        "id": row_id,
        "messages": [{"role": "user", "content": question}],
        "reference": reference,
        "group": group,
        "split": split,
        "origin": origin,
        "source": SOURCE,
        "licence": "Apache-2.0",
    }


def numbered(prefix: str, cases: Sequence[tuple[str, str, str]]) -> Iterator[Row]:
    """Rows of (question, reference, group) cases, dealt to train, val and test in this order."""
    splits = [split for split, size in SIZES.items() for _ in range(size)]
    for number, ((question, reference, group), split) in enumerate(zip(cases, splits, strict=True)):
        yield make_row(f"{prefix}-{number:04d}", question, reference, group, split)


# --- dates/iso_date ---------------------------------------------------------------------------------------------

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DATE_FORMS = ("{month} {day}, {year}", "{day} {month} {year}", "{short} {day}, {year}", "{day} {short} {year}",
              "{month} {day}{suffix}, {year}", "the {day}{suffix} of {month} {year}",
              "{weekday}, {month} {day}, {year}")  # fmt: skip
DATE_SENTENCES = ("The meeting is on {}.", "The invoice is dated {}.", "She was born on {}.", "Ship it by {}.",
                  "The contract ends on {}.", "We moved in on {}.", "The store opened on {}.", "My flight is on {}.",
                  "The warranty runs out on {}.", "He started work on {}.", "Rent is due on {}.",
                  "The exam takes place on {}.", "They married on {}.", "The parcel arrived on {}.",
                  "Please call me on {}.")  # fmt: skip


def date_rows() -> Iterator[Row]:
    """One date in words a row; no date occurs twice, so no value of the test is seen in training."""
    first = datetime.date(1990, 1, 1)
    days = [first + datetime.timedelta(days=n) for n in range(45 * 365)]
    cases = []
    for date in shuffled(days, "iso_date")[: sum(SIZES.values())]:
        month, pick = MONTHS[date.month - 1], index_of(date.isoformat())
        suffix = "th" if 11 <= date.day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
        text = DATE_FORMS[pick % len(DATE_FORMS)].format(
            month=month, short=month[:3], day=date.day, year=date.year, suffix=suffix, weekday=WEEKDAYS[date.weekday()]
        )
        question = DATE_SENTENCES[pick // len(DATE_FORMS) % len(DATE_SENTENCES)].format(text)
        cases.append((question, date.isoformat(), f"date-{date.isoformat()}"))
    yield from numbered("date", cases)


# --- retail/order_json ------------------------------------------------------------------------------------------

ITEMS = ("mugs", "plates", "towels", "lamps", "chairs", "pens", "shirts", "books", "bags", "bowls", "shoes",
         "blankets", "candles", "vases", "coats", "tables", "boxes", "bottles", "cups", "phones")  # fmt: skip
COLORS = ("red", "blue", "green", "black", "white", "yellow", "gray", "brown", "pink", "orange")
ORDERS = ("I want {q} {c} {i}.", "Please send me {q} {c} {i}.", "Can I order {q} {c} {i}?", "We need {q} {c} {i}.",
          "I would like to buy {q} {c} {i}.", "Add {q} {c} {i} to my cart.", "{q} {c} {i}, please.",
          "Order {q} {i} in {c}.", "I'll take {q} {i} in {c}.", "Could you ship {q} {c} {i} to me?",
          "Please put {q} {c} {i} on my order.", "My order is {q} {c} {i}.")  # fmt: skip


def order_rows() -> Iterator[Row]:
    """An order of one item; no (quantity, colour, item) occurs twice."""
    combinations = list(itertools.product(range(2, 21), COLORS, ITEMS))
    cases = []
    for quantity, color, item in shuffled(combinations, "order_json")[: sum(SIZES.values())]:
        key = f"{quantity}-{color}-{item}"
        question = ORDERS[index_of(key) % len(ORDERS)].format(q=quantity, c=color, i=item)
        cases.append((question, json.dumps({"item": item, "quantity": quantity, "color": color}), f"order-{key}"))
    yield from numbered("order", cases)


# --- retail/return_policy ---------------------------------------------------------------------------------------

REQUIRED = ("receipt", "tag", "box", "label", "seal", "manual", "invoice", "wrapper", "warranty card", "order slip",
            "barcode", "sticker", "price tag", "packing slip", "serial number", "gift note", "return form", "case",
            "certificate", "cover", "user guide", "coupon")  # fmt: skip
PRODUCTS = ("lamp", "shirt", "phone", "book", "chair", "watch", "toy", "coat", "radio", "clock", "mixer", "tent",
            "drill", "camera", "kettle", "guitar", "vase", "jacket", "tablet", "puzzle", "scarf", "mirror", "toaster",
            "rug", "helmet")  # fmt: skip
MEETS = ("have the", "still have the", "kept the")
MISSES = ("have no", "do not have the", "do not have any")


def policy_rows() -> Iterator[Row]:
    """Half of each split is "yes"; no (requirement, product) occurs twice.

    Counting days is left out on purpose: the embedded model answers those at chance, and a watched skill at chance
    shows no loss.
    """
    pairs = list(itertools.product(REQUIRED, PRODUCTS))
    cases = []
    for number, (required, product) in enumerate(shuffled(pairs, "return_policy")[: sum(SIZES.values())]):
        phrases = MISSES if number % 2 else MEETS
        phrase = phrases[index_of(f"{required}|{product}") % len(phrases)]
        question = f"The {required} is needed for a refund. I {phrase} {required} of the {product}."
        group = f"policy-{required}-{product}".replace(" ", "-")
        cases.append((question, "no" if number % 2 else "yes", group))
    yield from numbered("policy", cases)


# --- healthcare/patient_triage ----------------------------------------------------------------------------------


def triage_rows(data: Mapping[str, Any]) -> Iterator[Row]:
    """Authored messages: one row a template, two where it has a slot; split by template.

    Of ``templates`` a class goes to test until it has TRIAGE_TEST_ROWS rows, then to val, and the rest trains.
    Those of ``later`` were written after results had been read off the test split, without looking at it. They go to
    val and train only, so that the test stays the one those results were measured on.
    """
    for part, test_rows, val_rows in (("templates", TRIAGE_TEST_ROWS, TRIAGE_VAL_ROWS), ("later", 0, LATER_VAL_ROWS)):
        for label, templates in data[part].items():
            counts = {"test": 0, "val": 0, "train": 0}
            for template in shuffled(templates, "triage"):
                split = "test" if counts["test"] < test_rows else "val" if counts["val"] < val_rows else "train"
                prefix = label.lower().replace("_", "-") + ("-later" if part == "later" else "")
                name = f"{prefix}-{templates.index(template):02d}"
                for row in filled(template, data["slots"], name, label, split):
                    yield row
                    counts[split] += 1


def filled(template: str, slots: Mapping[str, Sequence[str]], name: str, label: str, split: str) -> Iterator[Row]:
    """The rows of one template."""
    for copy in range(TRIAGE_ROWS_PER_TEMPLATE if "{" in template else 1):
        start = index_of(template) + copy
        # one start for all slots: {day} and {day2}, the same list rotated, then never name the same day
        values = {slot: options[start % len(options)] for slot, options in slots.items()}
        yield make_row(f"{name}-{copy}", template.format(**values), label, f"template-{name}", split, "authored")


# --- files ------------------------------------------------------------------------------------------------------


def render(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def build(root: Path) -> dict[Path, str]:
    """Path of each regenerated file -> its whole text. Reads the templates and the kept rows of the triage file."""
    skills = root / SKILLS
    triage = skills / "healthcare" / "patient_triage" / "tasks.jsonl"
    existing = [json.loads(line) for line in triage.read_text(encoding="utf-8").splitlines()]
    kept = [row for row in existing if row["source"] != SOURCE]
    authored = triage_rows(json.loads(TEMPLATES.read_text(encoding="utf-8")))
    return {
        triage: render([*kept, *authored]),
        skills / "dates" / "iso_date" / "tasks.jsonl": render([*date_rows()]),
        skills / "retail" / "order_json" / "tasks.jsonl": render([*order_rows()]),
        skills / "retail" / "return_policy" / "tasks.jsonl": render([*policy_rows()]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files, or with --check only compare them; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file would change")
    arguments = parser.parse_args(argv)
    status = 0
    for path, text in build(ROOT).items():
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path}: differs from what tools/make_tasks.py makes; run it again", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
