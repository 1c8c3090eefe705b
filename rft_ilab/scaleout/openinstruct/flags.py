"""The command line of ``grpo_fast.py``: every flag that a run must set, none that its parser does not have."""

from __future__ import annotations

import shlex
from pathlib import Path

from rft_ilab.errors import RunError
from rft_ilab.scaleout.openinstruct.plan import Plan

EXPERIMENT = "rft"
# What decides whether a run may be followed, resumed and found again is not for settings to change.
OWN = (
    "--exp_name", "--output_dir", "--checkpoint_state_dir", "--dataset_mixer_list", "--dataset_mixer_eval_list",
    "--verification_reward", "--total_episodes", "--push_to_hub", "--seed",
)  # fmt: skip


def flags_of(plan: Plan, *, model: Path, data: Path, work: Path, seed: int) -> list[str]:
    """``work``: where grpo_fast writes; all nodes must see it. Raises RunError on a bad ``flags`` setting."""
    s, d, layout = plan.settings, plan.data, plan.layout
    flags: dict[str, tuple[object, ...]] = {
        "exp_name": (EXPERIMENT,),
        "seed": (seed,),
        "model_name_or_path": (model,),
        "dataset_mixer_list": (data, "1.0"),
        "dataset_mixer_list_splits": ("train",),
        "dataset_mixer_eval_list": (data, "1.0"),
        "dataset_mixer_eval_list_splits": ("test",),
        "dataset_local_cache_dir": (work / "cache",),
        "max_prompt_token_length": (d.prompt_limit,),
        "response_length": (d.response,),
        "pack_length": (plan.pack,),
        "num_unique_prompts_rollout": (s.prompts,),
        "num_samples_per_prompt_rollout": (s.group_size,),
        "async_steps": (s.async_steps,),
        "total_episodes": (s.steps * plan.answers,),
        "learning_rate": (s.learning_rate,),
        "lr_scheduler_type": ("constant",),
        "verification_reward": (1.0,),
        "beta": (s.kl_weight,),
        "load_ref_policy": ("true" if s.kl_weight else "false",),
        "deepspeed_stage": (plan.stage,),
        "num_learners_per_node": layout.learners,
        "vllm_num_engines": (layout.engines,),
        "vllm_tensor_parallel_size": (layout.tensor_parallel,),
        "vllm_gpu_memory_utilization": (plan.utilization,),
        "local_eval_every": (s.checkpoint_every,),
        "push_to_hub": ("false",),
        "output_dir": (work / "output",),
        "checkpoint_state_dir": (work / "state",),
        "checkpoint_state_freq": (s.checkpoint_every,),
        "save_freq": (-1,),
    }
    if plan.stage == 3 and max(layout.learners) != 8:
        # ZeRO++ keeps a second copy of the weights within groups of 8 GPUs, which there are not.
        flags["deepspeed_zpg"] = (1,)
    found = [part for name, values in flags.items() for part in (f"--{name}", *map(str, values))]
    if layout.shared:
        found += ["--single_gpu_mode", "--vllm_enforce_eager"]
    return found + extra_flags(s.flags)


def extra_flags(text: str) -> list[str]:
    """The setting ``flags`` as arguments. Raises RunError if it is no command line, or names a flag of ours."""
    fix = "change flags in [open_instruct] of rft.toml"
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise RunError(f"flags {text!r}: {error}", fix=fix) from error
    for part in parts:
        name = part.split("=")[0].replace("-", "_").replace("__", "--", 1)
        if name in OWN:
            raise RunError(f"flags may not set {name}", fix=fix)
    return parts
