"""Right when the whole answer is the reference date, written YYYY-MM-DD, and is a day of the calendar."""

import datetime
import re


def grade(sample, item):
    """1.0 or 0.0. An item whose reference is no ISO date is a broken task: raises ValueError, so no number results."""
    answer, reference = sample["output_text"].strip(), item["reference"]
    datetime.date.fromisoformat(reference)
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", answer):
        return 0.0
    try:
        datetime.date.fromisoformat(answer)
    except ValueError:
        return 0.0
    return 1.0 if answer == reference else 0.0
