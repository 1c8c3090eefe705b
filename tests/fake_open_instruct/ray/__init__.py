"""Stands for Ray: what the launcher, a driver and cluster_probe.py ask of it. The cluster has one node."""

from types import SimpleNamespace
from typing import Any

#: named actors of this job, each with the line that it would say
ALARMS: dict[str, str] = {}

__version__ = "0"
RESOURCES = {"CPU": 64.0, "GPU": 2.0}


def is_initialized() -> bool:
    return bool(ALARMS)


def get_actor(name: str) -> Any:
    return SimpleNamespace(line=SimpleNamespace(remote=lambda: ALARMS[name]))


def get(value: Any, timeout: float) -> Any:
    return value


def init(**options: object) -> None:
    pass


def nodes() -> list[dict[str, object]]:
    return [{"Alive": True, "NodeManagerAddress": "127.0.0.1", "Resources": RESOURCES}]


def available_resources() -> dict[str, float]:
    return RESOURCES
