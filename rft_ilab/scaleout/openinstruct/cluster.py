"""Has a Ray cluster what a plan needs? Asked by Open-Instruct's Python; judged here, by arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rft_ilab.errors import RunError
from rft_ilab.scaleout.openinstruct.plan import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Nodes that are alive, each with what it has in all of ``CPU`` and ``GPU``; ``free`` is what nobody has taken."""

    nodes: tuple[Mapping[str, float], ...]
    free: Mapping[str, float]

    @property
    def line(self) -> str:
        cpus, gpus = (sum(node[key] for node in self.nodes) for key in ("CPU", "GPU"))
        return (
            f"cluster: {len(self.nodes)} node{'' if len(self.nodes) == 1 else 's'}, {cpus:g} CPUs and {gpus:g} GPUs, "
            f"of which {self.free['CPU']:g} and {self.free['GPU']:g} are free"
        )

    @property
    def gpus_a_node(self) -> int:
        """Of the nodes that have any, the fewest."""
        return int(min((node["GPU"] for node in self.nodes if node["GPU"]), default=0))

    def check(self, layout: Layout, address: str) -> None:
        """Raises RunError with what is missing for ``layout``."""
        if missing := shortfalls(layout, self):
            raise RunError(
                f"the Ray cluster cannot hold the plan: {'; '.join(missing)}",
                where=address,
                fix="start it with more (ray start --num-cpus is what counts), or ask for less with --gpus and --nodes",
            )


def judge_cluster(found: Any) -> Cluster:
    """What ``cluster_probe.py`` printed. Raises RunError if it is something else."""
    try:
        nodes = tuple({key: float(node[key]) for key in ("CPU", "GPU")} for node in found["nodes"])
        return Cluster(nodes=nodes, free={key: float(found["free"][key]) for key in ("CPU", "GPU")})
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(f"the Ray cluster's answer cannot be read: {error}", fix="check --ray-address") from error


def shortfalls(layout: Layout, cluster: Cluster) -> list[str]:
    """What is missing; empty if all can be placed. grpo_fast would wait for it for a long time, and then fail.

    Learner bundles take the nodes with most GPUs, one each; engines whatever is left.
    """
    found = []
    for key, wanted in (("GPU", layout.gpus), ("CPU", layout.cpus)):
        if (total := sum(node[key] for node in cluster.nodes)) < wanted:
            found.append(f"{wanted} {key}s are needed, the cluster has {total:g}")
        elif cluster.free[key] < wanted:
            found.append(f"{wanted} {key}s are needed, {cluster.free[key]:g} of {total:g} are free")
    if found:
        return found
    rest = sorted((dict(node) for node in cluster.nodes), key=lambda node: (-node["GPU"], -node["CPU"]))
    taken: list[dict[str, float]] = []
    for bundle in layout.bundles:
        learner = len(taken) < len(layout.learners)
        node = _place(bundle, [one for one in rest if not learner or not any(one is two for two in taken)])
        if node is None:
            what = "learners" if learner else "an engine"
            found.append(
                f"no {'further ' if taken else ''}node has {bundle['GPU']} GPUs and {bundle['CPU']} CPUs for {what}"
            )
            return found
        taken.append(node)
    return found


def _place(bundle: Mapping[str, int], nodes: Sequence[dict[str, float]]) -> dict[str, float] | None:
    for node in nodes:
        if all(node[key] >= amount for key, amount in bundle.items()):
            for key, amount in bundle.items():
                node[key] -= amount
            return node
    return None
