"""Memory of a learner and of an engine, in bytes: arithmetic, to be read with a grain of salt.

A learner, mixed precision with Adam under ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054, section 3), of P parameters
on N learners: 2 P weights (bf16), 4 P gradients (grpo_fast accumulates them in fp32), 12 P optimizer (fp32 weights and
two moments). Stage 2 divides gradients and optimizer by N, stage 3 the weights, too. Activations: grpo_fast always
recomputes, so the input of every layer stays, and one layer at a time is whole: 34 bytes a token and hidden unit
(Korthikanti et al. 2022, arXiv:2205.05198, table 2; without the attention matrix, which fused kernels do not keep).
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_ilab.scaleout.openinstruct.model_shape import Shape

GIB = 1 << 30
WEIGHT, GRADIENT, OPTIMIZER = 2, 4, 12  # bytes a parameter
LAYER = 34  # bytes a token and hidden unit
LOGIT = 10  # bytes a token and word: bf16 logits, fp32 log-probabilities and gradient
#: CUDA context, NCCL's buffers, fragmentation, bucket of gradients under way: an assumption
LEARNER_RESERVE = 6 * GIB
#: the same for vLLM, with its CUDA graphs and activations
ENGINE_RESERVE = 4 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """``memory`` in bytes, ``flops`` a second (dense bf16), ``bandwidth`` of memory in bytes a second."""

    name: str
    memory: float
    flops: float
    bandwidth: float


#: vendors' data sheets
GPUS = {
    "a100": Gpu(name="A100 80 GB", memory=80e9, flops=312e12, bandwidth=2.0e12),
    "h100": Gpu(name="H100 80 GB", memory=80e9, flops=989e12, bandwidth=3.35e12),
    "h200": Gpu(name="H200 141 GB", memory=141e9, flops=989e12, bandwidth=4.8e12),
    "b200": Gpu(name="B200 192 GB", memory=192e9, flops=2250e12, bandwidth=8e12),
    "l40s": Gpu(name="L40S 48 GB", memory=48e9, flops=362e12, bandwidth=0.864e12),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerMemory:
    """Bytes on each learner GPU."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    logits: float
    reserve: float = LEARNER_RESERVE

    @property
    def total(self) -> float:
        return sum(getattr(self, name) for name in self.__dataclass_fields__)


def learner_memory(shape: Shape, *, stage: int, learners: int, pack: int, reference: bool) -> LearnerMemory:
    """``pack``: tokens of a packed row, of which a learner takes one at a time. ``reference``: a frozen copy for KL."""
    p = shape.parameters
    weights = WEIGHT * p / (learners if stage == 3 else 1)
    return LearnerMemory(
        weights=weights,
        gradients=GRADIENT * p / learners,
        optimizer=OPTIMIZER * p / learners,
        reference=weights if reference else 0.0,
        activations=pack * shape.hidden * (2.0 * shape.layers + LAYER),
        logits=float(pack * shape.vocabulary * LOGIT),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """Bytes on each GPU of an engine of ``tensor_parallel``; ``cache`` is left for keys and values."""

    budget: float
    weights: float
    cache: float
    cache_tokens: int
    sequences: int
    reserve: float = ENGINE_RESERVE


def engine_memory(shape: Shape, gpu: Gpu, *, tensor_parallel: int, utilization: float, sequence: int) -> EngineMemory:
    """``utilization``: share of the GPU that vLLM takes; ``sequence``: tokens of the longest prompt and answer.

    ``sequences`` that fit at once, all at their longest, is 0 where none does.
    """
    budget, weights = gpu.memory * utilization, WEIGHT * shape.parameters / tensor_parallel
    cache = max(0.0, budget - weights - ENGINE_RESERVE)
    # Heads of keys and values are divided, and copied where there are fewer than GPUs.
    each = shape.kv_bytes / min(tensor_parallel, shape.kv_heads)
    tokens = int(cache / each)
    return EngineMemory(budget=budget, weights=weights, cache=cache, cache_tokens=tokens, sequences=tokens // sequence)
