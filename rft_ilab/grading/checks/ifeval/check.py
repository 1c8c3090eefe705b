"""The grader type ``ifeval``: reads the instructions, asks each, and scores."""

from __future__ import annotations

from typing import Any, ClassVar

from rft_ilab.errors import GraderError
from rft_ilab.grading.checks.ifeval.instructions import Instruction, instruction
from rft_ilab.grading.registry import ANY, TEXT, Keys
from rft_ilab.grading.sample import Mark, Sample
from rft_ilab.grading.template import Template
from rft_ilab.skills.reading import parse_json

MAX_INSTRUCTIONS = 32
MAX_CHARACTERS = 65_536
SHAPE = 'a list of objects such as {"id": "length_constraints:number_words", "num_words": 50, "relation": "less than"}'


class IfevalCheck:
    """Without ``instructions`` they are the item's ``instruction_id_list`` and ``kwargs``, as in the public data.

    ``instructions`` is a list, or a template that gives one as JSON. ``strictness`` is ``strict`` or ``loose``
    (an instruction also holds if it does without the first line, the last line, both, or asterisks). ``score``
    is ``all`` (1 if all hold, else 0) or ``share`` (of those that hold).
    """

    REQUIRED: ClassVar[Keys] = {"input": TEXT}
    OPTIONAL: ClassVar[Keys] = {"instructions": ANY, "strictness": TEXT, "score": TEXT}

    def __init__(self, input: str, instructions: Any = None, strictness: str = "strict", score: str = "all") -> None:
        if strictness not in ("strict", "loose"):
            raise GraderError(f"strictness {strictness!r}", fix="strict or loose")
        if score not in ("all", "share"):
            raise GraderError(f"score {score!r}", fix="all or share")
        self._input, self._loose, self._share = Template(input), strictness == "loose", score == "share"
        self._template = Template(instructions) if isinstance(instructions, str) else None
        self._fixed = None if instructions is None or self._template else _read(instructions)

    def mark_one(self, sample: Sample) -> Mark:
        instructions = self._instructions(sample)
        text = self._input.render(sample)
        if len(text) > MAX_CHARACTERS:
            return Mark(0.0, None, f"longer than {MAX_CHARACTERS} characters")
        if not _is_visible(text):
            return Mark(0.0, None, "no answer")
        texts = [variant for variant in variants(text) if variant.strip()] if self._loose else [text]
        broken = [one.id for one in instructions if not any(one.holds(variant) for variant in texts)]
        held = len(instructions) - len(broken)
        if not broken:
            return Mark(1.0, None, "right")
        reason = f"{held} of {len(instructions)} hold; not {', '.join(broken)}"
        return Mark(held / len(instructions) if self._share else 0.0, None, reason)

    def _instructions(self, sample: Sample) -> list[Instruction]:
        """Raises GraderError, which is an error of the task."""
        if self._fixed is not None:
            return self._fixed
        if self._template is not None:
            try:
                return _read(parse_json(self._template.render(sample)))
            except ValueError as error:
                raise GraderError(f"the instructions are not JSON: {error}") from error
        ids, kwargs = sample.item.get("instruction_id_list"), sample.item.get("kwargs")
        if not isinstance(ids, list | tuple) or not isinstance(kwargs, list | tuple) or len(ids) != len(kwargs):
            raise GraderError("the task has no instruction_id_list and kwargs, two lists of equal length")
        return _read([{"instruction_id": id, "kwargs": given} for id, given in zip(ids, kwargs, strict=True)])


def _read(value: Any) -> list[Instruction]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise GraderError("the instructions are no list of objects", fix=SHAPE)
    if not 1 <= len(value) <= MAX_INSTRUCTIONS:
        raise GraderError(f"{len(value)} instructions", fix=f"from 1 to {MAX_INSTRUCTIONS}")
    return [_read_one(dict(one)) for one in value]


def _read_one(one: dict[str, Any]) -> Instruction:
    """``{"id": ..., argument: ...}``, or ``{"instruction_id": ..., "kwargs": {...}}``."""
    if one.keys() == {"instruction_id", "kwargs"}:
        given = one["kwargs"]
        return instruction(one["instruction_id"], {} if given is None else given)
    return instruction(one.pop("id", None), one)


def variants(text: str) -> list[str]:
    """The eight texts of the paper's loose accuracy, each once.

    >>> variants("Sure:\\n*yes*")
    ['Sure:\\n*yes*', '*yes*', 'Sure:', '', 'Sure:\\nyes', 'yes']
    """
    lines = text.split("\n")
    cut = [text, *("\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys([*cut, *(some.replace("*", "") for some in cut)]))


def _is_visible(text: str) -> bool:
    return any(character.isprintable() and not character.isspace() for character in text)
