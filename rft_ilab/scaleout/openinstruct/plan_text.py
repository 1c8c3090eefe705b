"""A plan for people: every number with how it comes about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rft_ilab.scaleout.openinstruct.memory import GIB
from rft_ilab.scaleout.openinstruct.plan import CPUS_A_LEARNER, CPUS_DATA, CPUS_MANAGER, ENGINE_SEQUENCES, Plan, room
from rft_ilab.scaleout.openinstruct.speed import COMPUTE, LAUNCH_S, READ, SEND, START_S, STEP_S


def plan_lines(plan: Plan) -> Iterator[str]:
    s, d, layout = plan.settings, plan.data, plan.layout
    yield f"plan: {plan.shape.name}, {_billions(plan.shape.parameters)} parameters, on {_machines(plan)}"
    yield (
        f"  data       {d.rows} training tasks; a prompt has {d.mean:.0f} tokens, at most {d.longest}; "
        f"answers at most {d.response}"
    )
    yield (
        f"             a step is {s.prompts} prompts x {s.group_size} answers = {plan.answers}; {s.steps} steps = "
        f"{s.steps * plan.answers:,} answers; tasks needed: {s.async_steps} steps ahead x {s.prompts} = "
        f"{s.async_steps * s.prompts}"
    )
    if layout.shared:
        yield "  division   one GPU learns and samples in turn"
    else:
        yield (
            f"  division   {sum(layout.learners)} GPUs learn ({_by_node(layout.learners)}), {layout.engines} vLLM "
            f"engine{_s(layout.engines)} of {layout.tensor_parallel} GPU{_s(layout.tensor_parallel)} sample"
        )
    yield from _memory(plan)
    yield from _ray(plan)
    yield from _time(plan)


def _memory(plan: Plan) -> Iterator[str]:
    m, e, shape, p = plan.learner, plan.engine, plan.shape, plan.shape.parameters
    n = sum(plan.layout.learners)
    over = f" / {n}" if n > 1 else ""
    yield (
        f"  learner    ZeRO stage {plan.stage}; GiB on each of {n} GPU{_s(n)}:"
        if n > 1
        else f"  learner    ZeRO stage {plan.stage}; GiB:"
    )
    yield f"    weights     {m.weights / GIB:6.1f}   2 bytes x {_billions(p)}{over if plan.stage == 3 else ''}"
    yield f"    gradients   {m.gradients / GIB:6.1f}   4 bytes x {_billions(p)}{over}"
    yield f"    optimizer   {m.optimizer / GIB:6.1f}   12 bytes x {_billions(p)}{over}"
    if m.reference:
        yield f"    reference   {m.reference / GIB:6.1f}   a frozen copy of the weights, for KL"
    kept = f"{shape.hidden} x (2 bytes x {shape.layers} layers + 34)"
    yield f"    activations {m.activations / GIB:6.1f}   {plan.pack} tokens x {kept}"
    yield f"    logits      {m.logits / GIB:6.1f}   {plan.pack} tokens x {plan.shape.vocabulary} words x 10 bytes"
    yield f"    reserve     {m.reserve / GIB:6.1f}   assumed: CUDA, NCCL, fragmentation"
    left = " that vLLM leaves" if plan.layout.shared else ""
    yield f"    in all      {m.total / GIB:6.1f}   of {room(plan) / GIB:.1f}{left}"
    tp = plan.layout.tensor_parallel
    each = f" on each of {tp} GPUs" if tp > 1 else ""
    yield f"  engine     vLLM takes {plan.utilization:g} of a GPU = {e.budget / GIB:.1f} GiB{each}:"
    yield f"    weights     {e.weights / GIB:6.1f}   2 bytes x {_billions(p)}{f' / {tp}' if tp > 1 else ''}"
    yield f"    reserve     {e.reserve / GIB:6.1f}   assumed: CUDA graphs, activations"
    yield (
        f"    KV cache    {e.cache / GIB:6.1f}   {shape.kv_bytes / 1024:.0f} KiB a token: {e.cache_tokens:,} tokens, "
        f"{e.sequences:,} sequences of {plan.data.sequence}"
    )


def _ray(plan: Plan) -> Iterator[str]:
    layout = plan.layout
    learners = sum(layout.learners)
    engines = 0 if layout.shared else layout.engines * layout.tensor_parallel
    yield (
        f"  Ray        {layout.cpus} CPUs = {CPUS_A_LEARNER} x {learners} learner GPU{_s(learners)} + {engines} engine "
        f"GPU{_s(engines)} + {CPUS_DATA} data + {CPUS_MANAGER} manager; {layout.gpus} GPU{_s(layout.gpus)}"
    )
    counted = Counter(tuple(bundle.items()) for bundle in layout.bundles)
    bundles = [f"{count} x {{{', '.join(f'{k}: {v}' for k, v in one)}}}" for one, count in counted.items()]
    yield f"             bundles: {' + '.join(bundles)}; those of learners each on a node of its own"


def _time(plan: Plan) -> Iterator[str]:
    t = plan.step
    rounds = f", in {t.waves} rounds of at most {ENGINE_SEQUENCES} an engine," if t.waves > 1 else ""
    yield (
        f"  speed      a step of {t.tokens:,} tokens: sampling {t.sample_s:.1f} s{rounds}, learning {t.learn_s:.1f} s "
        f"({'one after the other' if t.together else 'at the same time'}), weights to the engines {t.send_s:.1f} s, "
        f"{STEP_S:.1f} s besides "
        f"= {t.total_s:.1f} s, {_round(t.tokens_per_s)} tokens/s"
    )
    yield (
        f"             assumed: {COMPUTE:.0%} of {plan.gpu.flops / 1e12:.0f} TFLOP/s, {READ:.0%} of "
        f"{plan.gpu.bandwidth / 1e12:.2f} TB/s but {LAUNCH_S * 1000:.0f} ms a token at least, {SEND / 1e9:.0f} GB/s "
        "between GPUs; answers as long as allowed"
    )
    price = plan.settings.gpu_hour_price
    cost = f", {plan.gpu_hours * price:,.2f} at {price:g} an hour" if price else ""
    yield (
        f"  in all     {plan.settings.steps} steps x {t.total_s:.1f} s + {START_S / 60:.0f} min to start = "
        f"{_hours(plan.hours)}, {plan.gpu_hours:.1f} GPU hours{cost}"
    )
    yield "             arithmetic, not measured: a factor of two either way is no surprise"


def _machines(plan: Plan) -> str:
    nodes = f"{plan.nodes} nodes of {plan.gpus}" if plan.nodes > 1 else f"{plan.gpus}"
    return f"{nodes} x {plan.gpu.name}"


def _by_node(learners: tuple[int, ...]) -> str:
    if len(learners) == 1:
        return "one node"
    return f"{learners[0]} on each of {len(learners)} nodes"


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f}e9" if count >= 1e9 else f"{count / 1e6:.0f}e6"


def _round(value: float) -> str:
    """Two digits, which is more than the arithmetic is worth.

    >>> _round(12345.6), _round(7.04)
    ('12,000', '7')
    """
    if value < 100:
        return f"{value:.0f}"
    magnitude = 10 ** (len(str(int(value))) - 2)
    return f"{round(value / magnitude) * magnitude:,}"


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
