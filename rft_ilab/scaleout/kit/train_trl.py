"""GRPO with TRL on the rows beside this file, rewarded by the grader server (see rft_rewards.py).

``pip install 'trl>=1.16' torch``, start the server, then ``python train_trl.py --model MODEL --output tuned``. TRL of
this version leaves an answer without a reward out of the loss; older ones may count it as 0, so they are refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OLDEST = (1, 16)


def rows(split: str) -> list[dict[str, Any]]:
    # Not load_dataset("json"): it takes a reference such as 2024-01-05 for a point in time.
    return [json.loads(line) for line in (HERE / f"{split}.jsonl").read_text(encoding="utf-8").split("\n") if line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name or directory of a causal language model")
    parser.add_argument("--output", required=True, help="directory for the tuned model")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=8, help="prompts of a step")
    parser.add_argument("--group", type=int, default=8, help="answers to each prompt")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-6)
    arguments = parser.parse_args()

    import torch
    import trl
    from datasets import Dataset

    if tuple(int(part) for part in trl.__version__.split(".")[:2]) < OLDEST:
        sys.exit(f"trl {trl.__version__} may count a missing reward as 0: pip install 'trl>={OLDEST[0]}.{OLDEST[1]}'")
    sys.path.insert(0, str(HERE))
    from rft_rewards import preflight, rft_reward  # type: ignore[import-not-found]

    preflight(json.loads((HERE / "preflight.json").read_text(encoding="utf-8")))
    validation = rows("validation")
    trainer = trl.GRPOTrainer(
        model=arguments.model,
        reward_funcs=[rft_reward],
        args=trl.GRPOConfig(
            output_dir=arguments.output,
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.prompts * arguments.group,
            per_device_eval_batch_size=arguments.group,
            num_generations=arguments.group,
            max_completion_length=arguments.max_tokens,
            learning_rate=arguments.learning_rate,
            eval_strategy="steps" if validation else "no",
            eval_steps=max(1, arguments.steps // 5),
            logging_steps=1,
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows("train")),
        eval_dataset=Dataset.from_list(validation) if validation else None,
    )
    trainer.train()
    trainer.save_model(arguments.output)


if __name__ == "__main__":
    main()
