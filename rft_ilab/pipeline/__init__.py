"""Stages in order: verified data, training, gate. What the commands and the training hook call.

Each is imported when it is first asked for: a gate whose answers are all cached takes less time than the imports of
the other stages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rft_ilab.pipeline.aa import against_itself
    from rft_ilab.pipeline.baselines import save_baseline
    from rft_ilab.pipeline.gate import regress
    from rft_ilab.pipeline.generated import verify_generated
    from rft_ilab.pipeline.judging import base_tree
    from rft_ilab.pipeline.request import Request
    from rft_ilab.pipeline.stages import run_all, train, verify_data
    from rft_ilab.pipeline.standalone import gate_run

__all__ = [
    "Request",
    "against_itself",
    "base_tree",
    "gate_run",
    "regress",
    "run_all",
    "save_baseline",
    "train",
    "verify_data",
    "verify_generated",
]

_PLACES = {
    "Request": "request",
    "against_itself": "aa",
    "base_tree": "judging",
    "gate_run": "standalone",
    "regress": "gate",
    "run_all": "stages",
    "save_baseline": "baselines",
    "train": "stages",
    "verify_data": "stages",
    "verify_generated": "generated",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
