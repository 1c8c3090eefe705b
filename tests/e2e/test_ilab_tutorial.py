"""docs/tutorial.md, followed to the letter: every block that is not marked as recorded, in one scratch repository."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.repositories import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
HOME = "~/skills"  # what the document calls the repository
RECORDED = "*Recorded"  # the line before a block that is not run
ANYTHING = "..."  # instead of what a command prints that is InstructLab's


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the line of the document on which it begins (1-based), what stands before it."""

    language: str
    line: int
    before: str
    text: str


def blocks() -> Iterator[Block]:
    text = TUTORIAL.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        yield Block(match[1], text.count("\n", 0, match.start()) + 1, before, match[2])


def steps(block: Block) -> list[tuple[str, str]]:
    """(command, what it prints), for every `$` of a console block."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert parts[0] == "", f"line {block.line}: output before the first command"
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts[1:])]


@pytest.mark.slow
def test_every_block_of_the_tutorial(initialised, tmp_path: Path) -> None:
    repository = tmp_path / "skills"
    start = tmp_path / "checkout"  # what the first commands take of rft-ilab's own; no git repository
    for name in ("taxonomy", "graders"):
        shutil.copytree(ROOT / name, start / name)
    environment = {**initialised.environment, **SETTINGS, "COLUMNS": "80", "HOME": str(tmp_path)}
    environment["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    ran = 0
    for block in blocks():
        if block.language == "python":
            name = re.search(r"`(\w+\.py)`", block.before)
            assert name, f"line {block.line}: which file is that?"
            (repository / name[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "console" and not block.before.startswith(RECORDED):
            for command, output in steps(block):
                done = subprocess.run(
                    ["bash", "-c", command],
                    cwd=repository if repository.is_dir() else start,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=600,
                )
                said = done.stdout.replace(str(repository), HOME)
                assert done.returncode == 0 or output, f"line {block.line}: {command}\n{said}"
                assert trimmed(output) in (trimmed(said), ANYTHING), f"line {block.line}: {command}"
                ran += 1
    assert ran >= 21


def trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def test_what_is_recorded_says_so() -> None:
    """Only training, judging and what a model answers are, and what was printed is shown, not a command alone."""
    recorded = [block for block in blocks() if block.before.startswith(RECORDED)]
    commands = [command for block in recorded for command, _ in steps(block)]
    assert commands and all(re.match(r"(ilab rft (run|report)|cat report\.md)\b", command) for command in commands)
    assert all(output.strip() for block in recorded for _, output in steps(block))
