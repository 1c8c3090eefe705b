"""A Ray cluster that is there already: work is mapped over it in order, and what a dead node had begun is done again.

Ray hands tasks to the nodes and tries them again when a worker or a node dies. Here: few tasks at a time, results in
the order of the work whatever the order of arrival, and one line for what goes wrong for good.

Not covered: starting and sizing a cluster, and the death of its head, which ends every program that is connected.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rft_ilab import __version__, errors
from rft_ilab.errors import RftError, RunError

RETRIES = 5  # of a task whose worker or node dies
PER_CPU = 2  # tasks in the cluster for each of its processors: one runs, one waits

Work = Callable[[bytes], bytes]


class RayCluster:
    """Connected to the cluster at ``address`` (``auto``, ``HOST:PORT``, or ``ray://HOST:PORT``).

    Raises RunError if Ray is not installed, or there is no cluster.
    """

    def __init__(self, address: str) -> None:
        if importlib.util.find_spec("ray") is None:
            raise RunError("--ray needs the package ray", fix="pip install 'rft-ilab[ray]', in the cluster's version")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self.address, self._ray = address, ray
        try:
            if not ray.is_initialized():
                ray.init(address, log_to_driver=False, logging_level="ERROR", namespace="rft-ilab")
        except (ConnectionError, RuntimeError, ValueError, AssertionError) as error:
            line = " ".join(str(error).split())
            raise RunError(
                f"no Ray cluster: {line[:300]}", where=address, fix="start one with `ray start --head`"
            ) from error
        self._remote: dict[Work, Any] = {}

    @property
    def cpus(self) -> int:
        """Processors of all nodes that live."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    @property
    def nodes(self) -> int:
        return sum(bool(node["Alive"]) for node in self._ray.nodes())

    def map(self, work: Work, requests: Iterable[dict[str, Any]]) -> Iterator[Any]:
        """Results of ``work``, in the order of ``requests``, each run on one processor of some node.

        Raises the RftError that ``work`` reports, and RunError if the cluster cannot do it.
        """
        ray = self._ray
        remote = self._remote.get(work)
        if remote is None:
            remote = self._remote[work] = ray.remote(num_cpus=1, max_retries=RETRIES)(work)
        limit = PER_CPU * self.cpus
        waiting: list[Any] = []
        try:
            for request in requests:
                waiting.append(remote.remote(json.dumps({**request, "version": __version__}).encode()))
                if len(waiting) >= limit:
                    yield _result(ray.get(waiting.pop(0)))
            while waiting:
                yield _result(ray.get(waiting.pop(0)))
        except ray.exceptions.RayTaskError:
            raise
        except (ray.exceptions.RayError, ConnectionError) as error:
            line = " ".join(str(error).split())
            raise RunError(
                f"the Ray cluster did not do its work: {type(error).__name__}: {line[:300]}",
                where=self.address,
                fix="what was done is in the cache; start the same command again",
            ) from error
        finally:
            for reference in waiting:
                ray.cancel(reference)


def _result(data: bytes) -> Any:
    answer = json.loads(data)
    if "error" in answer:
        name, line = answer["error"]
        kind = getattr(errors, name, RftError)
        raise kind(line)
    return answer["result"]
