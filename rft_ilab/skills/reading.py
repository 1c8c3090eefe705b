"""Strict readers for files that came from outside: sizes, symlinks, JSON and YAML without surprises.

JSON: no NaN or infinities (``1e999`` included), no duplicate keys, no lone surrogates, at most 64 levels.
YAML: ``SafeLoader`` on at most 256 kB, no aliases, no merge keys, at most 32 levels, no duplicate keys, no
endless numbers.
"""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any, NoReturn

import yaml

from rft_ilab.errors import SkillError

MAX_JSON_DEPTH = 64
MAX_YAML_BYTES = 256 * 1024
MAX_YAML_DEPTH = 32
MAX_DIGITS = 1000  # of a whole number; Python may refuse to write one with more than 4,300
NUMBER_TAG = "tag:yaml.org,2002:int"
MERGE_TAG = "tag:yaml.org,2002:merge"


def read_text(path: Path, limit: int) -> str:
    """The text of a regular file of at most ``limit`` bytes, UTF-8, newlines as they are.

    Raises SkillError when it is missing, a symlink, too large or not UTF-8 (with the line).
    """
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise SkillError("is a symbolic link", where=path, fix="put the file itself there")
        if not stat.S_ISREG(status.st_mode):
            raise SkillError("is not a regular file", where=path)
        if status.st_size > limit:
            raise SkillError(f"{status.st_size} bytes are more than the limit of {limit}", where=path, fix="split it")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SkillError("missing file", where=path) from error
    except OSError as error:
        raise SkillError(f"cannot be read: {error.strerror}", where=path) from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SkillError("not valid UTF-8", where=path, line=line, fix="save the file as UTF-8") from error


def parse_json(text: str) -> Any:
    """Parse one JSON value strictly. Raises ValueError with a message for people (one line).

    >>> parse_json('{"a": 1}')
    {'a': 1}
    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: duplicate key 'a'
    """
    if text.startswith("\ufeff"):
        raise ValueError("starts with a byte order mark")
    try:
        value = _STRICT.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH and _deeper_than(value, MAX_JSON_DEPTH):
        raise ValueError(f"nested more than {MAX_JSON_DEPTH} levels deep")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:20]} is out of range")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        repeated = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {repeated!r}")
    return value


# Made once: making a decoder costs more than decoding a short answer.
_STRICT = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite_float, object_pairs_hook=_no_duplicates)


def _deeper_than(value: Any, limit: int) -> bool:
    """Walk with an explicit stack: a recursive walk is what deep input is meant to break."""
    stack = [(value, 1)]
    while stack:
        node, depth = stack.pop()
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        if children and depth > limit:
            return True
        stack += [(child, depth + 1) for child in children]
    return False


def has_lone_surrogate(value: Any) -> bool:
    """Whether any string in a JSON value could not be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, one space after comma and colon, as models write it.

    >>> canonical_json({"b": [1, 2], "a": "é"})
    '{"a": "é", "b": [1, 2]}'
    """
    return _CANONICAL.encode(value)


# Made once, as _STRICT is.
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses aliases, merge keys, duplicate keys and deep nesting while composing."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refused(f"alias *{event.anchor}: write it out", event)
        if self.depth >= MAX_YAML_DEPTH:
            raise _refused(f"nested more than {MAX_YAML_DEPTH} levels deep", event)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        self.depth -= 1
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        if isinstance(node, yaml.ScalarNode) and node.tag == NUMBER_TAG and len(node.value) > MAX_DIGITS:
            raise _refused(f"a number of {len(node.value)} characters", event)
        return node

    def _check_keys(self, mapping: yaml.MappingNode) -> None:
        seen: set[tuple[str, str]] = set()
        for key, _ in mapping.value:
            if key.tag == MERGE_TAG:
                raise _refused("merge key <<: write it out", key)
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key must be plain text", key)
            if (key.tag, key.value) in seen:
                raise _refused(f"duplicate key {key.value!r}", key)
            seen.add((key.tag, key.value))


def _refused(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def read_yaml(path: Path) -> tuple[Any, yaml.Node]:
    """The value of a YAML file and its node tree (for line numbers). Raises SkillError with the line."""
    text = read_text(path, MAX_YAML_BYTES)
    try:
        return parse_yaml(text)
    except SkillError as error:
        raise SkillError(error.what, where=path) from error
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise SkillError(f"not valid YAML: {error.problem}", where=path, line=line) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-13-45 looks like a date and is none
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SkillError(f"not valid YAML: {first}", where=path) from error


def parse_yaml(text: str) -> tuple[Any, yaml.Node]:
    """As :func:`read_yaml`, of a text. Raises SkillError if it is empty, YAMLError, ValueError."""
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise SkillError("empty file")
        return loader.construct_document(node), node  # type: ignore[no-untyped-call]
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


def line_of(node: yaml.Node, *path: str | int) -> int:
    """1-based line of the value at ``path`` in a node tree, or of the nearest thing above it."""
    for step in path:
        if isinstance(node, yaml.MappingNode) and isinstance(step, str):
            child = next((value for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            child = node.value[step]
        else:
            child = None
        if child is None:
            break
        node = child
    return int(node.start_mark.line) + 1
