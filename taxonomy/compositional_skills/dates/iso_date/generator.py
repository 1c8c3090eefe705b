"""Dates in words with their ISO form: right by construction.

The group is the date itself, as in tasks.jsonl, so that a date of the test split is never trained on.
"""

import datetime
import random

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
FORMS = ("{month} {day}, {year}", "{day} {month} {year}", "{short} {day}, {year}", "{day} {short} {year}",
         "{month} {day}{suffix}, {year}", "the {day}{suffix} of {month} {year}")  # fmt: skip
SENTENCES = ("The audit begins on {}.", "Please be there on {}.", "The library is closed on {}.",
             "Our lease starts on {}.", "The concert was moved to {}.", "Her passport expires on {}.",
             "The photo was taken on {}.", "Send the report no later than {}.", "They arrive on {}.",
             "The bridge opens to traffic on {}.")  # fmt: skip
FIRST, DAYS = datetime.date(1990, 1, 1), 45 * 365


def tasks(seed):
    """Rows as in ``tasks.jsonl``, without end."""
    draw = random.Random(seed)
    while True:
        date = FIRST + datetime.timedelta(days=draw.randrange(DAYS))
        month = MONTHS[date.month - 1]
        suffix = "th" if 11 <= date.day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
        text = draw.choice(FORMS).format(month=month, short=month[:3], day=date.day, year=date.year, suffix=suffix)
        yield {
            "messages": [{"role": "user", "content": draw.choice(SENTENCES).format(text)}],
            "reference": date.isoformat(),
            "group": f"date-{date.isoformat()}",
        }
