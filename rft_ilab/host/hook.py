"""Starts the extension of ilab's own commands (``ilab model train --rft``, ``ilab data generate --verify``) and of
instructlab-sdg (the block ``GraderFilterBlock``).

InstructLab offers entry points for new commands but none for options of existing ones, so the click
command is extended in place at the moment ilab imports its module:

1. ``ilab`` defines pydantic models before it loads any command, and pydantic then loads the entry
   points of group ``pydantic``. Ours is :mod:`rft_ilab.host.plugin`, which calls :func:`install`: a finder is put
   on ``sys.meta_path``.
2. The finder leaves every import alone but those in :data:`EXTENDED` and :data:`ATTACHED`. For these it finds the
   module as Python would and, after it was executed, calls :mod:`rft_ilab.cli.extend` or the module of ours that
   registers the block. A detached ``ilab data generate`` is another process, in which the same happens.

Every pydantic process of the environment loads the two modules, so they use the standard library
only and never raise: whatever goes wrong leaves the command as InstructLab made it.
Switches, both environment variables:

``PYDANTIC_DISABLE_PLUGINS=__all__``  pydantic's own; the finder is then never installed
``RFT_ILAB_DEBUG_HOOK=1``             print the traceback of whatever went wrong here
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

DEBUG_VARIABLE = "RFT_ILAB_DEBUG_HOOK"

#: module of an existing ilab command -> name of the click command in it
EXTENDED = {"instructlab.cli.model.train": "train", "instructlab.cli.data.generate": "generate"}

#: module of instructlab-sdg, imported whenever any of it is -> module of ours; its ``attach`` gets the former
ATTACHED = {"instructlab.sdg.generate_data": "rft_ilab.host.sdg"}

#: modules that could not be extended -> why (shown by ``ilab rft --help``)
failures: dict[str, str] = {}


class CommandFinder:
    """A ``sys.meta_path`` entry that only acts on the modules in :data:`EXTENDED` and :data:`ATTACHED`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module with the finders behind this one and have it extended once it is executed."""
        if name not in EXTENDED and name not in ATTACHED:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                _extend_after_execution(spec)
                return spec
        return None


def _extend_after_execution(spec: ModuleSpec) -> None:
    """Wrap ``exec_module`` of this one loader object; its class and everything else stay untouched."""
    try:
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _extend(module)

        loader.exec_module = exec_module
    except Exception as error:  # noqa: BLE001 - a foreign loader must not break the import
        _failed(spec.name, error)


def _extend(module: ModuleType) -> None:
    try:
        if (ours := ATTACHED.get(module.__name__)) is not None:
            # Without ``attach`` it is being imported, which imported instructlab-sdg: it attaches itself at its end.
            getattr(importlib.import_module(ours), "attach", lambda module: None)(module)
            return
        extend = importlib.import_module("rft_ilab.cli.extend")
        extend.extend(module.__name__, getattr(module, EXTENDED[module.__name__]))
    except Exception as error:  # noqa: BLE001 - the command works without our options
        _failed(module.__name__, error)


def _failed(name: str, error: Exception) -> None:
    failures[name] = f"{type(error).__name__}: {error}"
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(error)
    elif name in ATTACHED:
        # Nobody can tell from here whether the pipeline uses the block.
        reason = f"rft-ilab could not register its block in instructlab-sdg ({failures[name]})"
        print(f"Warning: {reason}; --pipeline rft will not work, see {DEBUG_VARIABLE}=1", file=sys.stderr)
    elif any(argument.startswith(("--rft", "--verify")) or argument == "rft" for argument in sys.argv):
        reason = f"rft-ilab could not extend this command ({failures[name]})"
        print(f"Warning: {reason}; use `ilab rft run`, or see {DEBUG_VARIABLE}=1", file=sys.stderr)


def installed() -> bool:
    """Whether the finder is in place in this process."""
    return any(isinstance(finder, CommandFinder) for finder in sys.meta_path)


def status() -> str:
    """One line: whether ``--rft`` and ``--verify`` are available in this process, else why not."""
    if not installed():
        disabled = os.environ.get("PYDANTIC_DISABLE_PLUGINS")
        return "not available: " + (
            f"PYDANTIC_DISABLE_PLUGINS={disabled}" if disabled else "pydantic did not load the rft-ilab plugin"
        )
    if failures:
        return "not available: " + "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    return "available"


def install() -> None:
    """Put the finder first on ``sys.meta_path``, once; extend what is already imported."""
    if installed():
        return
    sys.meta_path.insert(0, CommandFinder())  # type: ignore[arg-type]
    for name, command in EXTENDED.items():
        module = sys.modules.get(name)
        if module is not None and hasattr(module, command):
            _extend(module)
    for name in ATTACHED:
        module = sys.modules.get(name)
        if module is not None and not _being_imported(module):
            _extend(module)


def _being_imported(module: ModuleType) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))
