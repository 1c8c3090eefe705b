"""Runs in Open-Instruct's Python: its own reward function inside a Ray actor. Answers questions on stdin with JSON
lines.

Question: ``{"responses": [...], "labels": [...]}``, one group of completions of a prompt after the other being asked
at the same time, as the engine does. Answer: ``{"scores": [...]}``, or ``{"raised": "..."}``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

FLAGS = (
    "--dataset_mixer_list none 1.0 --verification_reward 1.0 --beta 0.0 --load_ref_policy false "
    "--max_prompt_token_length 256 --response_length 256 --pack_length 512"
)


def load_launcher():
    path = Path(sys.argv[1]) / "launcher.py"
    spec = importlib.util.spec_from_file_location("rft_launcher", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed() -> tuple:
    """Open-Instruct's arguments, read by its own parser."""
    from open_instruct import data_loader, grpo_utils
    from open_instruct.utils import ArgumentParserPlus

    parser = ArgumentParserPlus((grpo_utils.GRPOExperimentConfig, data_loader.StreamingDataLoaderConfig))
    parser.set_defaults(exp_name="grpo", warmup_ratio=0.0, max_grad_norm=1.0, per_device_train_batch_size=1)
    url = os.environ.get("CODE_API_URL")
    return parser.parse_args_into_dataclasses([*FLAGS.split(), *(["--code_api_url", url] if url else [])])


def bare() -> tuple:
    """What the verifiers read of those arguments, where the parser cannot be imported (it needs vLLM)."""
    streaming = SimpleNamespace(
        llm_judge_model="", llm_judge_max_tokens=1, llm_judge_max_context_length=1, llm_judge_temperature=0.0,
        llm_judge_timeout=1, seed=1, code_api_url="http://127.0.0.1:9/test_program", code_max_execution_time=1.0,
        code_pass_rate_reward_threshold=0.0, code_apply_perf_penalty=False, remap_verifier=None,
        max_length_verifier_max_length=32768, verification_reward=1.0,
    )  # fmt: skip
    if url := os.environ.get("CODE_API_URL"):
        streaming.code_api_url = url
    return SimpleNamespace(seed=1), streaming


class Engine:
    """As ``LLMRayActor``: builds the reward function from the configuration that it was sent."""

    def __init__(self, config) -> None:
        self.reward = config.build()

    async def group(self, responses, label, dataset):
        n = len(responses)
        infos = SimpleNamespace(
            timeouts=[0] * n, tool_errors=[""] * n, tool_outputs=[""] * n, tool_calleds=[False] * n, rollout_states=None
        )
        return (
            await self.reward([[1]] * n, responses, [[label]] * n, [[dataset]] * n, ["stop"] * n, infos, ["q"] * n)
        )[0]

    async def groups(self, asked, dataset):
        return await asyncio.gather(*(self.group(responses, label, dataset) for responses, label in asked))


def main() -> None:
    launcher = load_launcher()
    launcher.load("rft_grader_client", "grader_client.py")
    verifier = launcher.load("rft_verifier", "verifier.py")
    import ray
    from open_instruct.ground_truth_utils import RewardConfig, build_all_verifiers

    try:
        arguments, how = parsed(), "parser"
    except ImportError as error:
        arguments, how = bare(), f"bare ({error})"
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    config = RewardConfig(
        verification_reward=arguments[1].verification_reward,
        verifier_functions=build_all_verifiers(arguments[0], arguments[1]),
    )
    engine = ray.remote(num_cpus=0)(Engine).remote(config)
    print(json.dumps({"ready": how, "verifiers": sorted(config.verifier_functions)}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            scores = ray.get(engine.groups.remote(question["groups"], question.get("dataset", "rft_ilab")))
            answer = {"scores": [[float(score) for score in group] for group in scores]}
        except Exception as error:  # noqa: BLE001 - that is what is asked
            answer = {"raised": str(error), "alarm": launcher.find_alarm(verifier.ALARM)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
