"""The peer of bench_rl.py: TRL's GRPOTrainer, in an environment of its own (``pip install trl peft torch``).

Does one step for every line on stdin and answers with one JSON object: seconds, processor seconds, mean reward. Imports
nothing of rft_ilab.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


def letters(text: str) -> float:
    """A reward that long answers differ in: the share of e. The other side has the same."""
    return text.count("e") / max(1, len(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reward", choices=("equal", "letters"), default="equal")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(arguments.threads)
    rows = [json.loads(line) for line in arguments.prompts.read_text().splitlines()]
    rewards: list[float] = []

    def reward(completions: list[Any], reference: list[str], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        if arguments.reward == "letters":
            found = [letters(text) for text in texts]
        else:
            found = [float(text.strip() == right) for text, right in zip(texts, reference, strict=True)]
        rewards[:] = found
        return found

    class OnDemand(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            print(json.dumps({"ready": state.global_step}), flush=True)
            if not sys.stdin.readline().strip():
                os._exit(0)
            self.wall, self.cpu = time.monotonic(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            row = {"wall_s": time.monotonic() - self.wall, "cpu_s": time.process_time() - self.cpu}
            row |= {"reward": sum(rewards) / len(rewards)}
            row |= {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
            print(json.dumps(row), flush=True)

    config = GRPOConfig(
        output_dir="/tmp/bench-rl-peer",
        # One forward of all 64 sequences with their logits takes 18 GB.
        per_device_train_batch_size=arguments.group,
        gradient_accumulation_steps=arguments.batch,
        num_generations=arguments.group,
        max_completion_length=arguments.max_tokens,
        max_steps=1000,
        learning_rate=2e-4,
        beta=0.0,
        temperature=1.0,
        top_k=0,
        use_cpu=True,
        bf16=arguments.dtype == "bfloat16",
        gradient_checkpointing=False,  # kinder to the peer: it would compute everything twice
        save_strategy="no",
        logging_steps=10_000,
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=0,
        model_init_kwargs={"dtype": arguments.dtype},
    )
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    trainer = GRPOTrainer(
        model=arguments.model,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"),
        callbacks=[OnDemand()],
    )
    trainer.train()


if __name__ == "__main__":
    main()
