"""Who learns, who samples, and what that takes: chosen by arithmetic before anything starts.

An engine takes as few GPUs as hold the model, a learner the lowest ZeRO stage that fits; of the ways to divide the
GPUs then, the one with the shortest step. On several nodes whole nodes learn or sample, because grpo_fast places one
group of learners on each node (``STRICT_SPREAD``), with 10 CPUs a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rft_ilab.config import OpenInstructSettings
from rft_ilab.errors import RunError
from rft_ilab.scaleout.openinstruct.memory import (
    GIB,
    GPUS,
    EngineMemory,
    Gpu,
    LearnerMemory,
    engine_memory,
    learner_memory,
)
from rft_ilab.scaleout.openinstruct.model_shape import Shape
from rft_ilab.scaleout.openinstruct.speed import START_S, StepTime, step_time

# As in open_instruct/grpo_fast_resource_plan.py.
CPUS_A_LEARNER, CPUS_DATA, CPUS_MANAGER = 10, 2, 1
UTILIZATION, UTILIZATION_SHARED = 0.9, 0.3  # of a GPU's memory, by vLLM; the second where a learner shares the GPU
# grpo_fast leaves max_num_seqs to vLLM 0.19, whose engines then take no more at once.
ENGINE_SEQUENCES = 128
TOKENS_STEP = 64  # limits on tokens are rounded up to a multiple
LEAST_PACK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Rows of the training set; tokens of its longest prompt, of a mean one, and of the longest answer allowed."""

    rows: int
    longest: int
    mean: float
    response: int

    @property
    def prompt_limit(self) -> int:
        return -(-self.longest // TOKENS_STEP) * TOKENS_STEP

    @property
    def sequence(self) -> int:
        return self.prompt_limit + self.response


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``learners``: GPUs that learn, by node; ``engines`` of ``tensor_parallel`` GPUs each sample. ``shared``: one GPU
    does both."""

    learners: tuple[int, ...]
    engines: int
    tensor_parallel: int
    shared: bool

    @property
    def bundles(self) -> list[dict[str, int]]:
        """What Ray has to place, each learner bundle on a node of its own."""
        mine = [{"GPU": n, "CPU": CPUS_A_LEARNER * n} for n in self.learners]
        tp = self.tensor_parallel
        return mine + ([] if self.shared else [{"GPU": tp, "CPU": tp}] * self.engines)

    @property
    def gpus(self) -> int:
        return sum(bundle["GPU"] for bundle in self.bundles)

    @property
    def cpus(self) -> int:
        return sum(bundle["CPU"] for bundle in self.bundles) + CPUS_DATA + CPUS_MANAGER


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    shape: Shape
    gpu: Gpu
    data: Data
    settings: OpenInstructSettings
    nodes: int
    gpus: int
    layout: Layout
    stage: int
    pack: int
    utilization: float
    learner: LearnerMemory
    engine: EngineMemory
    step: StepTime

    @property
    def answers(self) -> int:
        return self.settings.prompts * self.settings.group_size

    @property
    def hours(self) -> float:
        return (START_S + self.settings.steps * self.step.total_s) / 3600

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.nodes * self.gpus


def make_plan(shape: Shape, data: Data, settings: OpenInstructSettings, *, nodes: int, gpus: int) -> Plan:
    """The plan for ``nodes`` of ``gpus`` GPUs each. Raises RunError if the data or the memory does not suffice."""
    check_rows(data, settings)
    if data.sequence > shape.context:
        raise RunError(
            f"prompts of up to {data.prompt_limit} tokens and answers of {data.response} are more than the "
            f"{shape.context} that {shape.name} can see",
            fix="shorten the prompts, or lower max_tokens of the skill in rft.toml",
        )
    found = [
        plan for layout in _layouts(nodes, gpus, settings) for plan in _plans(shape, data, settings, nodes, layout)
    ]
    if not found:
        raise RunError(
            f"{nodes} x {gpus} GPUs cannot be divided as asked for",
            fix="check learners, tensor_parallel, prompts and group_size in [open_instruct] of rft.toml",
        )
    fitting = [plan for plan in found if _shortage(plan) <= 0]
    if not fitting:
        least = min(found, key=_shortage)
        raise RunError(
            f"{shape.name} does not fit on {nodes} x {gpus} {least.gpu.name}: with ZeRO stage {least.stage}, "
            f"a learner needs {least.learner.total / GIB:.0f} of {room(least) / GIB:.0f} GiB, and an engine has room "
            f"for {least.engine.sequences} sequences",
            fix="take more or larger GPUs (--gpus, --nodes, gpu in [open_instruct]), or a smaller model",
        )
    return min(fitting, key=lambda plan: (plan.layout.tensor_parallel, plan.step.total_s, plan.stage))


def check_rows(data: Data, settings: OpenInstructSettings) -> None:
    """grpo_fast refuses a data set that does not fill the steps sampled ahead. Raises RunError."""
    needed = settings.async_steps * settings.prompts
    if data.rows < needed:
        raise RunError(
            f"{data.rows} training tasks are too few: {settings.async_steps} steps ahead of {settings.prompts} prompts "
            f"take {needed}",
            fix="add tasks, or lower prompts or async_steps in [open_instruct] of rft.toml",
        )


def _layouts(nodes: int, gpus: int, settings: OpenInstructSettings) -> Iterator[Layout]:
    wanted = settings.learners
    if nodes * gpus == 1:
        if wanted in (0, 1) and settings.tensor_parallel in (0, 1):
            yield Layout(learners=(1,), engines=1, tensor_parallel=1, shared=True)
        return
    for each in [(n,) for n in range(1, gpus)] if nodes == 1 else [(gpus,) * n for n in range(1, nodes)]:
        # Every learner needs an answer of each step.
        if wanted not in (0, sum(each)) or sum(each) > settings.prompts * settings.group_size:
            continue
        rest = nodes * gpus - sum(each)
        for tp in (settings.tensor_parallel,) if settings.tensor_parallel else (1, 2, 4, 8):
            if tp <= gpus and rest % tp == 0 and (nodes == 1 or gpus % tp == 0):
                yield Layout(learners=each, engines=rest // tp, tensor_parallel=tp, shared=False)


def _plans(shape: Shape, data: Data, settings: OpenInstructSettings, nodes: int, layout: Layout) -> Iterator[Plan]:
    gpu, learners = GPUS[settings.gpu], sum(layout.learners)
    pack = max(LEAST_PACK, data.sequence)
    utilization = UTILIZATION_SHARED if layout.shared else UTILIZATION
    engine = engine_memory(
        shape, gpu, tensor_parallel=layout.tensor_parallel, utilization=utilization, sequence=data.sequence
    )
    for stage in (settings.zero_stage,) if settings.zero_stage else (2, 3):
        yield Plan(
            shape=shape,
            gpu=gpu,
            data=data,
            settings=settings,
            nodes=nodes,
            gpus=layout.gpus // nodes,
            layout=layout,
            stage=stage,
            pack=pack,
            utilization=utilization,
            learner=learner_memory(shape, stage=stage, learners=learners, pack=pack, reference=settings.kl_weight > 0),
            engine=engine,
            step=step_time(
                shape,
                gpu,
                answers=settings.prompts * settings.group_size,
                prompt=data.mean,
                response=data.response,
                learners=learners,
                engines=layout.engines,
                tensor_parallel=layout.tensor_parallel,
                sequences=max(1, min(engine.sequences, ENGINE_SEQUENCES)),
                together=layout.shared,
            ),
        )


def room(plan: Plan) -> float:
    """Bytes of a GPU that a learner may take."""
    return plan.gpu.memory - (plan.engine.budget if plan.layout.shared else 0.0)


def _shortage(plan: Plan) -> float:
    """Bytes that a GPU lacks; at most 0 where the plan fits."""
    engine = plan.engine
    need = plan.data.sequence * plan.shape.kv_bytes / min(plan.layout.tensor_parallel, plan.shape.kv_heads)
    return max(plan.learner.total - room(plan), engine.weights + engine.reserve + need - engine.budget)
