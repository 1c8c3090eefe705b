"""Stands for Ray: what the launcher, a driver and cluster_probe.py ask of it. The cluster has one node."""

__version__ = "0"
RESOURCES = {"CPU": 64.0, "GPU": 2.0}


def is_initialized() -> bool:
    return False


def init(**options: object) -> None:
    pass


def nodes() -> list[dict[str, object]]:
    return [{"Alive": True, "NodeManagerAddress": "127.0.0.1", "Resources": RESOURCES}]


def available_resources() -> dict[str, float]:
    return RESOURCES
