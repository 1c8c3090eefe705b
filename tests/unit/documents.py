"""What the documents show (fenced blocks, commands in them and in running text), and the real commands beside it."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import click

from rft_ilab.host import hook

ROOT = Path(__file__).resolve().parents[2]
# Generated, and what was true when it was written.
GENERATED, HISTORY = "reference.md", "log.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*|\.\.\.")


@dataclass(frozen=True)
class Block:
    """A fenced block: its document, the line on which it begins (1-based), its language, its text."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> dict[str, str]:
    """Name -> text; the two README.md are told apart by their directory."""
    files = [ROOT / "README.md", ROOT / "taxonomy/README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {str(f.relative_to(ROOT)).removeprefix("docs/"): f.read_text(encoding="utf-8") for f in files}


def blocks(*languages: str) -> list[Block]:
    """All of them, or those of these languages."""
    found = [
        Block(name, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for name, text in documents().items()
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def lines(block: Block) -> list[str]:
    """The commands of a console block, without prompt and comment. Where there are prompts, the rest is output."""
    text = block.text.replace("\\\n", " ")
    prompted = re.findall(r"^\$ (.*)$", text, re.M)
    return [line for line in (without_comment(one) for one in prompted or text.splitlines()) if line]


def without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#\s.*$", "", line).strip()


def inline() -> Iterator[tuple[str, str]]:
    """(document, code in backticks) of running text and tables."""
    for name, text in documents().items():
        if name not in (GENERATED, HISTORY):
            for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", text)):
                yield name, code.replace("\\|", "|")


def ilab_commands(line: str) -> list[list[str]]:
    """The arguments of every call of ``ilab`` in a line of shell; what sets variables or starts it does not count."""
    calls = []
    for part in re.split(r"&&|[|;&](?=\s|$)", line):
        words = shlex.split(part.split(" > ")[0])
        while words and ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        if "ilab" in words and (words[0] == "ilab" or words[0] == "torchrun"):
            calls.append(words[words.index("ilab") + 1 :])
    return calls


@cache
def our_commands() -> dict[tuple[str, ...], click.Command]:
    """Those of pyproject.toml, so that a command is found that this environment has not been told of yet."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    found = {}
    for group, entries in points.items():
        if group.startswith("instructlab.command."):
            for name, place in entries.items():
                module, attribute = place.split(":")
                command = getattr(importlib.import_module(module), attribute)
                found[(group.removeprefix("instructlab.command."), name)] = command
    return found


def resolved(words: Sequence[str]) -> tuple[str, click.Command, list[str]]:
    """The command that these arguments of ``ilab`` call, and the rest of them. Raises UsageError if there is none."""
    from instructlab.lab import ilab

    hook.install()  # --rft and --verify
    at: click.Command = ilab
    taken: tuple[str, ...] = ()
    while isinstance(at, click.Group) and len(words) > len(taken) and not words[len(taken)].startswith("-"):
        name = words[len(taken)]
        context = click.Context(at, obj=host())
        found = our_commands().get((*taken, name)) or at.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command 'ilab {' '.join((*taken, name))}'")
        at, taken = found, (*taken, name)
    return " ".join(("ilab", *taken)), at, list(words[len(taken) :])


def host() -> SimpleNamespace:
    """What ``ilab`` hands to its commands."""
    from instructlab.configuration import get_default_config

    return SimpleNamespace(config=get_default_config())


def parsed(words: Sequence[str], *, whole: bool = True) -> None:
    """Have click read the arguments of ``ilab`` without running anything. Raises UsageError.

    ``whole``: nothing may be missing. Placeholders (in capitals) may stand for any value.
    """
    name, command, rest = resolved(words)
    if isinstance(command, click.Group):
        if rest and whole:
            raise click.UsageError(f"'{name}' has commands of its own, {rest[0]} is none")
        return
    context = click.Context(command, info_name=name, obj=host())
    values, left, _ = command.make_parser(context).parse_args([word for word in rest if word != "..."])
    if left:
        raise click.UsageError(f"'{name}' does not take {left}")
    elided = not whole or "..." in rest
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if parameter.required and value in (None, ()) and not elided:
            raise click.UsageError(f"'{name}' needs {parameter.human_readable_name}")
        if isinstance(parameter.type, click.Choice | click.types.IntRange | click.types.FloatRange):
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, str) and not PLACEHOLDER.fullmatch(one):
                    parameter.type.convert(one, parameter, context)


@cache
def known_options() -> frozenset[str]:
    """Every option of ours, and of the commands that we extend."""
    from instructlab.lab import ilab

    hook.install()
    commands = list(our_commands().values())
    for words in (("model", "train"), ("data", "generate")):
        commands.append(resolved(words)[1])
    context = click.Context(ilab, obj=host())
    found: set[str] = set()
    while commands:
        command = commands.pop()
        if isinstance(command, click.Group):
            commands += [
                one for one in (command.get_command(context, n) for n in command.list_commands(context)) if one
            ]
        for parameter in command.params:
            found.update(parameter.opts, parameter.secondary_opts)
    return frozenset(found)
