"""One error class per boundary. Each prints as one line: what, where, what to do.

Commands turn an ``RftError`` into that line and exit code 2; inside the package nobody catches
them. Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


class RftError(Exception):
    """Base class. ``where`` is a file, optionally with a line (1-based); ``fix`` says what to do."""

    def __init__(self, what: str, *, where: str | Path | None = None, line: int | None = None, fix: str = "") -> None:
        self.what, self.where, self.line, self.fix = what, where, line, fix
        place = "" if where is None else f"{where}:{line}: " if line else f"{where}: "
        super().__init__(f"{place}{what}" + (f" ({fix})" if fix else ""))


class SkillError(RftError):
    """A skill on disk is missing, malformed or empty."""


class GraderError(RftError):
    """A grader is malformed (not: a grader failed on a sample; that is a ``Grade`` with an error)."""


class SandboxError(RftError):
    """The sandbox could not be started at all."""


class PolicyError(RftError):
    """A model directory or endpoint cannot be used."""


class SignalError(RftError):
    """RL would have nothing to learn from."""


class TrainingError(RftError):
    """Training came to numbers that are none."""


class TrackerError(RftError):
    """A tracker of training metrics that was asked for is not installed or does not start."""


class RunError(RftError):
    """A run directory is missing, corrupt or belongs to another configuration."""


class CacheError(RftError):
    """The cache of answers and grades cannot be used, and must not be touched."""


class DiskError(RftError):
    """There is no room for what has to be written; nothing that was there is damaged."""


class HostError(RftError):
    """InstructLab is absent or not what the plugin was proven with."""
