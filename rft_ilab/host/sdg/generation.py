"""Around instructlab-sdg's ``generate_data``: what a block cannot see of the generation that it is part of.

For a pipeline with a ``GraderFilterBlock``, and for no other:

- Before anything is asked of a model, configs and skills are checked: SDG makes a block only when its turn comes.
- Taxonomy and dated output directory are remembered for the blocks (:func:`current`).
- SDG's checkpoints, which know nothing of pipelines, get a directory of their own for every pipeline, model and set of
  graders: else rows that nobody verified would come back out of an earlier generation.
- Afterwards the kept rows become prompt sets for RL, every skill's yield is told, and rows that did come out of a
  checkpoint get their lines in the ledger.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rft_ilab.errors import HostError
from rft_ilab.host import pipelines
from rft_ilab.host.sdg.options import Options
from rft_ilab.host.sdg.running import Generation, log

TRY = "use a stronger teacher, more rows (--sdg-scale-factor), or a smaller `needed` in the pipeline"


_current: Generation | None = None


def current() -> Generation | None:
    """The generation that runs in this process; None outside of ``generate_data``."""
    return _current


def attach(module: ModuleType) -> None:
    """Have ``generate_data`` of SDG's module of that name go through :func:`run`; doing so twice is doing it once."""
    original = module.generate_data
    if getattr(original, "runs_rft_ilab", False):
        return

    @functools.wraps(original)
    def generate_data(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind(*args, **kwargs)
        return run(functools.partial(original, *args, **kwargs), given.arguments)

    generate_data.runs_rft_ilab = True  # type: ignore[attr-defined]
    module.generate_data = generate_data  # type: ignore[attr-defined]
    package = sys.modules.get("instructlab.sdg")
    if package is not None and getattr(package, "generate_data", None) is original:
        package.generate_data = generate_data  # type: ignore[attr-defined]


def run(original: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """``original()``, told of to the blocks, if its pipeline has one of ours.

    Raises BlockConfigParserError, HostError or SkillError before ``original`` begins; HostError after it, if not one
    row of the skills with graders was kept: training would start on nothing.
    """
    global _current
    pipeline = given.get("pipeline") or "simple"
    blocks = list(pipelines.grader_blocks(pipeline))
    if not blocks:
        return original()
    from rft_ilab.host.sdg import leaves, ledger, promptsets

    taxonomy = taxonomy_root(given.get("taxonomy"))
    generation = Generation(taxonomy=taxonomy)
    wanted = [Options.parse(config, block=name, where=file) for file, name, config in blocks]
    places = dict.fromkeys(taxonomy_of(options, generation) for options in wanted)
    environments = [leaves.load_environments(place) for place in places]
    if given.get("output_dir"):
        generation.output = Path(given["output_dir"])
    changed = {}
    if given.get("checkpoint_dir"):
        name = leaves.fingerprint(Path(pipeline), given.get("model_name"), environments)
        generation.checkpoints = Path(given["checkpoint_dir"]) / f"rft-{name[:16]}"
        changed["checkpoint_dir"] = str(generation.checkpoints)
    before, _current = _current, generation
    try:
        done = original(**changed)
        earlier = ledger.take_over(generation)
        promptsets.write(generation, environments)
    finally:
        _current = before
        for skill, tally in generation.tallies.items():
            report(skill, tally, generation.ledgers)
    if generation.tallies and not earlier and not any(tally["kept"] for tally in generation.tallies.values()):
        where = min(generation.ledgers, default=None)
        raise HostError("no row of any skill with a grader was verified", where=where, fix=TRY)
    return done


def taxonomy_root(taxonomy: str | Path | None) -> Path:
    """The taxonomy of a generation, which SDG also takes as the path of a single ``qna.yaml``. Raises HostError."""
    if not taxonomy:
        raise HostError("no taxonomy", fix="give one to generate_data, or the key `taxonomy` to the block")
    path = Path(taxonomy).absolute()
    if path.is_file():
        return next((p.parent for p in path.parents if p.name == "compositional_skills"), path.parent)
    return path


def taxonomy_of(options: Options, running: Generation | None) -> Path:
    """The block's own, else that of the generation, else that of ilab's configuration. Raises HostError."""
    if options.taxonomy is not None:
        return Path(options.taxonomy).expanduser()
    if running is not None:
        return running.taxonomy
    from instructlab.configuration import DEFAULTS, ConfigException, read_config

    try:
        return taxonomy_root(read_config(DEFAULTS.CONFIG_FILE).generate.taxonomy_path)
    except (ConfigException, OSError) as error:
        fix = "set `taxonomy` in its config, or run ilab config init"
        raise HostError(f"{pipelines.BLOCK} knows no taxonomy", fix=fix) from error


def report(skill: str, tally: Mapping[str, int], ledgers: set[Path]) -> None:
    """One line in the log on what became of a skill's rows; a warning that says what to try if none was kept."""
    total, kept = sum(tally.values()), tally.get("kept", 0)
    parts = ", ".join(f"{n} {fate}" for fate, n in sorted(tally.items(), key=lambda item: (-item[1], item[0])))
    where = ", ".join(map(str, sorted(ledgers)))
    if kept:
        log.info("%s: %d of %d rows verified (%s); %s says why", skill, kept, total, parts, where)
    else:
        none = "%s: none of %d rows was verified (%s); %s says why. What to try: %s"
        log.warning(none, skill, total, parts, where, TRY)
