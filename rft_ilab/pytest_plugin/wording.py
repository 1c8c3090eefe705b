"""Sections of failed tests and the table of skills, as texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rft_ilab.pytest_plugin.answers import Answered
from rft_ilab.pytest_plugin.wishes import Wishes
from rft_ilab.regress.statistics import wilson
from rft_ilab.report.wording import visible

MAX_TEXT = 600
MAX_LINE = 100
LABEL = 10


def first_line(text: str, limit: int = MAX_LINE) -> str:
    """For a summary: one line, cut."""
    line = " ".join(visible(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def wrong_line(answer: Answered) -> str:
    shown = answer.shown
    share = f"{answer.right} of {len(answer.graded)} right; " if len(answer.graded) > 1 else ""
    said = first_line(shown.rollout.completion, 40) or "nothing"
    return f"{share}expected {first_line(answer.task.reference, 40)}, answered {said}"


def answer_lines(answer: Answered, wishes: Wishes, *, whole: bool) -> list[str]:
    """Prompt, expected and given answer, what the grader made of it. ``whole``: nothing is cut."""
    shown, limit = answer.shown, None if whole else MAX_TEXT
    grade, turns = shown.grade, answer.task.messages if whole else answer.task.messages[1:]
    prompt = turns[-1].content
    if len(turns) > 1:
        prompt = "\n".join(f"{turn.role}: {turn.content}" for turn in turns)
    lines = [*_field("prompt", prompt, limit), *_field("expected", answer.task.reference, limit)]
    cut_off = " (cut off: max_tokens)" if shown.rollout.stop == "length" else ""
    label = f"answer {shown.rollout.index + 1}" if wishes.samples else "answer"
    lines += _field(label, shown.rollout.completion, limit)
    lines[-1] += cut_off
    if grade.error is None:
        lines += _field("extracted", "nothing" if grade.answer is None else grade.answer, limit)
        lines += _field("grader", f"{grade.reason} (score {grade.score:g})", limit)
    if answer.problem is not None:
        lines += _field("error", answer.problem, None)
    if grade.error is not None and grade.reason:
        lines += _field("traceback", grade.reason, limit)
    if wishes.samples:
        asked = f"a share of {wishes.pass_rate:g} is asked for"
        lines += _field("samples", f"{answer.right} of {len(answer.graded)} right; {asked}", None)
    if wishes.demonstrations:
        lines += _field("before it", f"{wishes.demonstrations} demonstrations", None)
    return lines


def _field(label: str, text: str, limit: int | None) -> list[str]:
    text = visible(text.strip("\n"))
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}… ({len(text) - limit} more characters: -vv)"
    first, *more = text.split("\n")
    return [f"  {label:<{LABEL}} {first}".rstrip(), *(f"  {'':<{LABEL}} {line}".rstrip() for line in more)]


def accuracy_line(right: int, graded: int, interval: tuple[float, float] | None) -> str:
    """
    >>> accuracy_line(10, 10, wilson(10, 10))
    'accuracy 100.0 % [72.2, 100.0], 10 of 10'
    """
    if not graded or interval is None:
        return "nothing could be graded"
    low, high = interval
    return f"accuracy {100 * right / graded:.1f} % [{100 * low:.1f}, {100 * high:.1f}], {right} of {graded}"


def table(outcomes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """One line a skill: outcomes (``right``, ``wrong``, ``error``) counted, accuracy of those graded."""
    rows = [("skill", "passed", "failed", "errors", "accuracy", "95 % interval")]
    for skill, given in sorted(outcomes.items()):
        right, wrong, errors = (given.count(outcome) for outcome in ("right", "wrong", "error"))
        share, interval = "", ""
        if right + wrong:
            low, high = wilson(right, right + wrong)
            share, interval = f"{100 * right / (right + wrong):.1f} %", f"[{100 * low:.1f}, {100 * high:.1f}]"
        rows.append((skill, str(right), str(wrong), str(errors), share, interval))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for skill, *numbers in rows:
        cells = [f"{number:>{width}}" for number, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join([f"{skill:<{widths[0]}}", *cells]).rstrip()
    if errors := sum(list(given).count("error") for given in outcomes.values()):
        yield f"{errors} not graded: neither right nor wrong, and no part of the accuracy"
