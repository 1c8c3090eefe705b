"""How long a step takes: arithmetic on data sheets and a few assumptions. Nothing of it was measured.

Sampling is bound by memory (Pope et al. 2022, arXiv:2211.05102): for a token of every sequence an engine reads all
weights and all keys and values once. Prompts are computed first, at two operations a weight and token. Learning takes
six operations a weight and token (Kaplan et al. 2020, arXiv:2001.08361) and two more because grpo_fast recomputes
activations. Both go on at the same time, except on a single GPU; then the new weights are sent to the engines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rft_ilab.scaleout.openinstruct.memory import Gpu
from rft_ilab.scaleout.openinstruct.model_shape import Shape

READ = 0.5  # share of the memory's bandwidth that decoding gets
COMPUTE = 0.3  # share of the data sheet's operations that learning and prefill get
LAUNCH_S = 0.01  # the least that decoding one token takes, however small the model
STEP_S = 1.0  # of every step: Ray, packing, grading
SEND = 20e9  # bytes a second, learners to engines
START_S = 600.0  # loading, compiling, placement


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one step, which has so many ``tokens``; ``waves``: rounds that an engine needs for its share."""

    sample_s: float
    learn_s: float
    send_s: float
    tokens: int
    waves: int
    together: bool

    @property
    def total_s(self) -> float:
        work = self.sample_s + self.learn_s if self.together else max(self.sample_s, self.learn_s)
        return work + self.send_s + STEP_S

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.total_s


def step_time(
    shape: Shape,
    gpu: Gpu,
    *,
    answers: int,
    prompt: float,
    response: int,
    learners: int,
    engines: int,
    tensor_parallel: int,
    sequences: int,
    together: bool,
) -> StepTime:
    """``answers`` of a step, of ``response`` tokens at most; an engine takes ``sequences`` at once."""
    p = shape.parameters
    share = math.ceil(answers / engines)
    waves = math.ceil(share / sequences)
    at_once = math.ceil(share / waves)
    read = (2 * p + at_once * (prompt + response / 2) * shape.kv_bytes) / tensor_parallel
    decode_s = waves * response * max(LAUNCH_S, read / (gpu.bandwidth * READ))
    prefill_s = share * prompt * 2 * p / (tensor_parallel * gpu.flops * COMPUTE)
    tokens = round(answers * (prompt + response))
    return StepTime(
        sample_s=decode_s + prefill_s,
        learn_s=8 * p * tokens / (learners * gpu.flops * COMPUTE),
        send_s=2 * p / SEND,
        tokens=tokens,
        waves=waves,
        together=together,
    )
