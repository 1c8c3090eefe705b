"""What the instances of one ``GraderFilterBlock`` of one pipeline share: skills, questions so far, the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from instructlab.sdg.blocks.block import BlockConfigParserError

from rft_ilab.errors import HostError
from rft_ilab.host.pipelines import BLOCK
from rft_ilab.host.sdg import generation, leaves, ledger
from rft_ilab.host.sdg.client import ClientPolicy
from rft_ilab.host.sdg.judge import Row, SkillJudge
from rft_ilab.host.sdg.options import Options
from rft_ilab.store import Cache, user_directory
from rft_ilab.synth.screening import held_out

CONCURRENCY = 8


class State:
    """Loads the skills. Raises HostError if no taxonomy is known, SkillError or GraderError if a skill is broken."""

    def __init__(self, ctx: Any, block: str, options: Options) -> None:
        self._ctx, self._block, self._options = ctx, block, options
        self._generation = generation.current()
        self._environments = leaves.load_environments(generation.taxonomy_of(options, self._generation))
        self._held_out = held_out(self._environments)
        self._judges: dict[str, SkillJudge] = {}
        self._without: set[str] = set()
        self._ledger = ledger.place(options.ledger, self._generation)
        self._tallies = {} if self._generation is None else self._generation.tallies

    def skill_of(self, leaf: str, description: str | None) -> str | None:
        """The skill of SDG's leaf; None, said once in the log, if it has no grader."""
        found = leaves.find(self._environments, leaf, description)
        if found is not None:
            return found.skill.name
        if self._options.skill is not None:
            known = ", ".join(e.skill.name for e in self._environments) or "none"
            what = f"{BLOCK} {self._block!r}: no skill {self._options.skill!r} with a grader"
            raise HostError(what, fix=f"known: {known}")
        if leaf not in self._without:
            self._without.add(leaf)
            generation.log.info("%s: no grader.json, so its rows pass unverified", leaf)
        return None

    def kept(self, name: str, rows: Mapping[int, Row]) -> dict[int, str | None]:
        """Judge rows of a skill: the places of the kept ones, with the ids of their lines in the ledger."""
        cache = Cache(user_directory("cache") / "results.sqlite")
        policy = ClientPolicy(self._ctx.client, self._model(), cache=cache, concurrency=self._concurrency())
        judge = self._judge(name)
        found = judge.judge(list(rows.values()), policy, cache)
        lines = [judge.line(row, one, policy, self._block) for row, one in zip(rows.values(), found, strict=True)]
        ledger.append(self._ledger, lines, self._generation)
        tally = self._tallies.setdefault(name, Counter())
        tally.update(one.disposition for one in found)
        if self._generation is None:
            generation.report(name, tally, {self._ledger})
        judged = zip(rows, found, lines, strict=True)
        return {i: line["id"] for i, one, line in judged if one.disposition == "kept"}

    def _judge(self, name: str) -> SkillJudge:
        if name not in self._judges:
            environment = next(e for e in self._environments if e.skill.name == name)
            o = self._options
            self._judges[name] = SkillJudge(
                environment, self._held_out, samples=o.samples, needed=o.needed, seed=o.seed
            )
        return self._judges[name]

    def _model(self) -> str:
        """As SDG's own blocks have it: the model of the generation, else that of the block."""
        model = self._ctx.model_id or self._options.model_id
        if not model:
            fix = "set `model_id`, or model_id of the PipelineContext"
            raise BlockConfigParserError(f"{BLOCK} {self._block!r}: no model to ask ({fix})")
        return str(model)

    def _concurrency(self) -> int:
        if self._options.concurrency is not None:
            return self._options.concurrency
        # llama.cpp answers one at a time; SDG has found out, or been told, that the server is of that kind.
        serial = getattr(self._ctx.client, "server_supports_batched", None) is False or not self._ctx.batching_enabled
        return 1 if serial else CONCURRENCY
