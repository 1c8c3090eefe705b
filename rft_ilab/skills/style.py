"""The one way in which the files of a leaf are laid out; what they say is not touched.

Line endings are line feeds, no line ends in white space, the last one ends. ``grader.json`` is indented by two, and
what fits into a line stays in one; ``tasks.jsonl`` has one object a line and no blank lines. In both the well-known
keys come first. In ``qna.yaml`` comments, quotes and indentation stay; there are at most two blank lines in a row, as
yamllint asks.

Not repaired: what cannot be read, rows that are no JSON, missing or doubled ids (they decide a split), Python.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from rft_ilab.errors import SkillError
from rft_ilab.skills.reading import has_lone_surrogate, parse_json, parse_yaml

WIDTH = 120
BOM = "\ufeff"
MAX_BLANK_LINES = 2
GRADER_KEYS = ("type", "name", "operation", "input", "reference")
ROW_KEYS = ("id", "messages", "reference", "group", "split", "origin")
TURN_KEYS = ("role", "content")
_ONE_LINE = json.JSONEncoder(ensure_ascii=False)  # made once: for short texts that is half of the work


def grader_text(grader: Mapping[str, Any]) -> str:
    """``grader.json`` as it is written here.

    >>> print(grader_text({"name": "a", "type": "ref"}), end="")
    {"type": "ref", "name": "a"}
    """
    return _laid_out(_grader_ordered(grader), 0) + "\n"


def row_text(row: Mapping[str, Any]) -> str:
    """A line of ``tasks.jsonl``, without its end.

    >>> row_text({"reference": "é", "messages": [{"content": "a", "role": "user"}]})
    '{"messages": [{"role": "user", "content": "a"}], "reference": "é"}'
    """
    ordered = _ordered(row, ROW_KEYS)
    if isinstance(turns := row.get("messages"), list):
        ordered["messages"] = [_ordered(turn, TURN_KEYS) if isinstance(turn, dict) else turn for turn in turns]
    return _ONE_LINE.encode(ordered)


def restyled(name: str, text: str) -> str:
    """The text of a file of a leaf, or of a shared grader, in the house's style; as it was if it cannot be read."""
    return next((style(text) for ending, style in _STYLES.items() if name.endswith(ending)), text)


def style_problem(before: str, after: str) -> tuple[int, str]:
    """The first line (1-based) that :func:`restyled` changes, and what is wrong with the file, in a few words."""
    old, new = before.split("\n"), after.split("\n")
    line = next((i for i, (a, b) in enumerate(zip(old, new, strict=False), 1) if a != b), min(len(old), len(new)))
    found = [
        what
        for what, holds in (
            ("a byte order mark", before.startswith(BOM) and not after.startswith(BOM)),
            ("carriage returns", before.count("\r") > after.count("\r")),
            ("white space at the end of lines", _trailing(before) > _trailing(after)),
            ("blank lines", _blank(before) > _blank(after)),
            ("no line feed at the end", bool(before) and not before.endswith("\n")),
        )
        if holds
    ]
    if "".join(before.removeprefix(BOM).split()) != "".join(after.split()) or not found:
        found.append("another layout")
    return line, ", ".join(found)


def _trailing(text: str) -> int:
    return len(re.findall(r"[ \t]\r?(?:\n|\Z)", text))


def _blank(text: str) -> int:
    return len(re.findall(r"^[ \t\r]*$", text, re.MULTILINE))


def _grader(text: str) -> str:
    value = _value(text.removeprefix(BOM))
    return grader_text(value) if isinstance(value, dict) else text


def _object(text: str) -> str:
    value = _value(text.removeprefix(BOM))
    return _laid_out(value, 0) + "\n" if isinstance(value, dict) else text


def _rows(text: str) -> str:
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    lines = []
    for line in text.removeprefix(BOM).split("\n"):
        value = _value(line) if line.strip() else None
        if isinstance(value, dict):
            lines.append(row_text(value))
        elif line.strip():
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _plain(text: str) -> str:
    lines = [line.rstrip() for line in text.removeprefix(BOM).replace("\r\n", "\n").split("\n")]
    body = "\n".join(lines).strip("\n")
    return f"{body}\n" if body else text


def _yaml(text: str) -> str:
    """Line by line, and only as long as YAML reads the same; blocks of text keep what belongs to them."""
    if _yaml_lines(text, frozenset()) == text:  # as nearly every file is: nothing to repair, so nothing to read
        return text
    try:
        value, blocks = _meaning(text)
    except (SkillError, ValueError, yaml.YAMLError):
        return text
    for inside in (frozenset[int](), blocks):
        changed = _yaml_lines(text, inside)
        try:
            if _same(_meaning(changed)[0], value):
                return changed
        except (SkillError, ValueError, yaml.YAMLError):
            continue
    return text


def _meaning(text: str) -> tuple[Any, frozenset[int]]:
    """What a YAML text says, and the numbers (from 0) of the lines inside block scalars and quoted texts."""
    value, node = parse_yaml(text)
    lines: set[int] = set()
    nodes = [node]
    while nodes:
        at = nodes.pop()
        if isinstance(at, yaml.ScalarNode):
            lines.update(range(at.start_mark.line + (at.style in ("|", ">")), at.end_mark.line))
        elif isinstance(at, yaml.MappingNode):
            nodes += [part for pair in at.value for part in pair]
        else:
            nodes += at.value
    return value, frozenset(lines)


def _yaml_lines(text: str, kept: frozenset[int]) -> str:
    """Trailing white space and blank lines beyond two go, except on the lines ``kept``."""
    lines: list[str] = []
    empty = 0
    for number, line in enumerate(text.removeprefix(BOM).replace("\r\n", "\n").split("\n")):
        stripped = line if number in kept else line.rstrip(" \t")
        empty = 0 if stripped or number in kept else empty + 1
        if empty <= MAX_BLANK_LINES and (lines or stripped):
            lines.append(stripped)
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines) + "\n"


def _value(text: str) -> Any:
    """A JSON value that can be written again; None if there is none."""
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return None if "\\u" in text and has_lone_surrogate(value) else value  # in UTF-8 only an escape makes one


def _same(one: Any, other: Any) -> bool:
    """Equality that tells 1 from 1.0 and from true."""
    return repr(one) == repr(other)


def _ordered(value: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value[key] for key in keys if key in value} | {k: v for k, v in value.items() if k not in keys}


def _grader_ordered(grader: Mapping[str, Any]) -> dict[str, Any]:
    ordered = _ordered(grader, GRADER_KEYS)
    parts = grader.get("graders")
    if isinstance(parts, dict):
        ordered["graders"] = {k: _grader_ordered(v) if isinstance(v, dict) else v for k, v in parts.items()}
    elif isinstance(parts, list):
        ordered["graders"] = [_grader_ordered(part) if isinstance(part, dict) else part for part in parts]
    return ordered


def _laid_out(value: Any, depth: int, used: int = 0) -> str:
    """JSON of at most :data:`WIDTH` columns, where its texts allow that. ``used``: columns taken before and after."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + 2 * depth + used <= WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict):
        keys = [json.dumps(key, ensure_ascii=False) for key in value]
        items = zip(keys, value.values(), strict=True)
        parts = [f"{inner}{key}: {_laid_out(child, depth + 1, len(key) + 3)}" for key, child in items]
        return "{\n" + ",\n".join(parts) + f"\n{outer}}}"
    if any(isinstance(child, dict | list) for child in value):
        parts = [inner + _laid_out(child, depth + 1, 1) for child in value]
        return "[\n" + ",\n".join(parts) + f"\n{outer}]"
    rows = [inner]
    for index, child in enumerate(value):
        item = json.dumps(child, ensure_ascii=False) + ("," if index < len(value) - 1 else "")
        if rows[-1] == inner:
            rows[-1] += item
        elif len(rows[-1]) + 1 + len(item) <= WIDTH:
            rows[-1] += f" {item}"
        else:
            rows.append(inner + item)
    return "[\n" + "\n".join(rows) + f"\n{outer}]"


# ending -> style; the first that fits. Whatever else lies in a leaf stays as it is.
_STYLES: Mapping[str, Callable[[str], str]] = {
    "qna.yaml": _yaml,
    ".waivers.json": _object,
    ".json": _grader,
    ".jsonl": _rows,
    "attribution.txt": _plain,
}
