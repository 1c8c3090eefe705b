"""``GraderFilterBlock``: a block of SDG pipelines that lets through what a skill's grader and other answers support."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from instructlab.sdg.blocks.block import Block, BlockConfigParserError
from instructlab.sdg.registry import BlockRegistry

from rft_ilab.host.pipelines import BLOCK
from rft_ilab.host.sdg.options import Options

if TYPE_CHECKING:
    from datasets import Dataset

    from rft_ilab.host.sdg.judge import Row
    from rft_ilab.host.sdg.state import State

LEAF, DESCRIPTION, SEED = "leaf_node_path", "task_description", "seed_question"

# SDG makes a block anew for every batch, in several threads. Batches are judged one at a time (the calls of one batch
# run together), so that the bound on calls holds and near-duplicates across batches are seen.
_LOCK = threading.Lock()
_STATES: weakref.WeakKeyDictionary[Any, dict[str, State]] = weakref.WeakKeyDictionary()


@BlockRegistry.register(BLOCK)
class GraderFilterBlock(Block):
    """Keeps the rows of a skill whose answer its grader accepts and enough independent answers agree with.

    Raises BlockConfigParserError for a bad config. Leaves without a grader pass unchanged.
    """

    def __init__(self, ctx: Any, pipe: Any, block_name: str, **config: Any) -> None:
        super().__init__(ctx, pipe, block_name)
        self._where = getattr(pipe, "config_path", None)
        self.options = Options.parse(config, block=block_name, where=self._where)

    def generate(self, samples: Dataset) -> Dataset:
        """The kept rows in their order, with the id of their line in the ledger as one more column.

        Raises PolicyError if the model does not answer, and HostError if the ledger cannot be written.
        """
        if len(samples) == 0:
            return samples
        self._check_columns(samples.column_names)
        with _LOCK:
            state = self._state()
            places: dict[str, list[int]] = {}
            for i, (leaf, description) in enumerate(self._leaves(samples)):
                name = state.skill_of(leaf, description)
                places.setdefault(name or "", []).append(i)
            passed = places.pop("", [])
            if not places:
                return samples
            kept: dict[int, str | None] = dict.fromkeys(passed)
            for name, indices in places.items():
                kept |= state.kept(name, {i: self._row(samples[i]) for i in indices})
        from rft_ilab.host.sdg.ledger import COLUMN

        chosen = sorted(kept)
        out = samples.select(chosen)
        if not chosen:  # no column can be added to no rows; SDG leaves empty batches out
            return out
        if COLUMN in out.column_names:
            out = out.remove_columns([COLUMN])
        return out.add_column(COLUMN, [kept[i] for i in chosen])

    def _leaves(self, samples: Dataset) -> Iterable[tuple[str, str | None]]:
        if self.options.skill is not None:
            return [(f"compositional_skills_{self.options.skill.replace('/', '_')}", None)] * len(samples)
        described = DESCRIPTION in samples.column_names
        return zip(samples[LEAF], samples[DESCRIPTION] if described else [None] * len(samples), strict=True)

    def _row(self, sample: dict[str, Any]) -> Row:
        from rft_ilab.host.sdg.judge import Row

        def text(column: str | None) -> str:
            value = sample.get(column) if column else None
            return "" if value is None else str(value)

        o = self.options
        return Row(
            question=text(o.question_column), answer=text(o.answer_column),
            context=text(o.context_column) or None, seed=text(SEED) or None,
        )  # fmt: skip

    def _check_columns(self, there: list[str]) -> None:
        o = self.options
        wanted = [o.question_column, o.answer_column, *([o.context_column] if o.context_column else [])]
        if missing := [name for name in wanted if name not in there]:
            what, fix = f"no column {missing[0]!r} in its rows", f"columns: {', '.join(sorted(there))}"
        elif o.skill is None and LEAF not in there:
            what, fix = f"no column {LEAF!r} in its rows", "keep that column, or set `skill`"
        else:
            return
        place = f"{self._where}: " if self._where else ""
        raise BlockConfigParserError(f"{place}{BLOCK} {self.block_name!r}: {what} ({fix})")

    def _state(self) -> State:
        from rft_ilab.host.sdg.state import State

        states = {} if self.pipe is None else _STATES.setdefault(self.pipe, {})
        if self.block_name not in states:
            states[self.block_name] = State(self.ctx, self.block_name, self.options)
        return states[self.block_name]
