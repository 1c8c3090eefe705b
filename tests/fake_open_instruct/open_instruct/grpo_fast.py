"""``grpo_fast.py`` as seen from outside. "Answers" are right ones with wrong ones between, graded by the real verifier.

FAKE_FAIL=STEP raises there; FAKE_SLOW=SECONDS waits at every step. At FAKE_OUTAGE=STEP an engine leaves a line as the
verifier does, and the step waits for rewards for ever, as in the original. Panel, markers and names as the original
writes them (open_instruct/model_utils.py: print_rich_single_line_metrics; grpo_fast.py: save_model,
setup_runtime_variables).
"""

import argparse
import json
import logging
import os
import shutil
import time
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import ray
from rich import print as rprint
from rich.panel import Panel
from rich.table import Table
from safetensors.numpy import load_file, save_file

from open_instruct.ground_truth_utils import VerifierFunction

logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(levelname)s - %(filename)s:%(lineno)d - %(message)s")
logger = logging.getLogger(__name__)


def print_metrics(metrics):
    table = Table(show_header=False, box=None)
    table.add_column("Category", style="cyan")
    table.add_column("Values", style="magenta")
    grouped = defaultdict(list)
    for key, value in metrics.items():
        grouped[key.split("/")[0] if "/" in key else "other"].append((key, value))
    for category in sorted(grouped):
        shown = [f"{'/'.join(k.split('/')[1:]) or k}: {v:.2f}" for k, v in grouped[category]]
        table.add_row(category, " | ".join(shown))
    rprint(Panel(table, title="Metrics", expand=False, border_style="bold green"))


def main():
    parser = argparse.ArgumentParser()
    for name in (
        "exp_name", "seed", "model_name_or_path", "output_dir", "checkpoint_state_dir", "total_episodes",
        "num_unique_prompts_rollout", "num_samples_per_prompt_rollout", "checkpoint_state_freq",
    ):  # fmt: skip
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--dataset_mixer_list", nargs=2)
    args, _ = parser.parse_known_args()
    prompts, samples = int(args.num_unique_prompts_rollout), int(args.num_samples_per_prompt_rollout)
    steps = int(args.total_episodes) // (prompts * samples)
    output = Path(args.output_dir) / f"{args.exp_name}__{args.seed}__{int(time.time())}"
    state = Path(args.checkpoint_state_dir) / "state.json"
    first = json.loads(state.read_text())["step"] + 1 if state.exists() else 1
    if first > 1:
        logger.info(f"[Main Thread] Resuming training from step {first}")
    rows = pq.read_table(Path(args.dataset_mixer_list[0]) / "train.parquet").to_pylist()
    verifiers = {v.name.lower(): v for v in (cls() for cls in VerifierFunction.__subclasses__())}
    logger.info("======== ✅ vLLM engines and actor_manager initialized =========")
    logger.info("======== ✅ all models initialized =========")
    for step in range(first, steps + 1):
        time.sleep(float(os.environ.get("FAKE_SLOW", "0")))
        if step == int(os.environ.get("FAKE_FAIL", "0")):
            raise RuntimeError("CUDA error: out of memory")
        if step == int(os.environ.get("FAKE_OUTAGE", "0")):
            print("(LLMRayActor pid=7) the grader of area/x fails (tolerated: advantage 0)", flush=True)
            ray.ALARMS["rft_ilab_alarm"] = "no grades from http://10.0.0.1:1 in 9 tries and 300 s"
            try:
                time.sleep(3600)
            finally:
                print("\n".join(f"RayTaskError: clean-up, line {i}" for i in range(100)), flush=True)
        scores = []
        for i in range(prompts):
            row = rows[(step * prompts + i) % len(rows)]
            answer = json.loads(row["ground_truth"])["item"]["reference"]
            verify = verifiers[row["dataset"]]
            scores += [verify([], text, row["ground_truth"], "").score for text in (answer, "no such answer")]
        print_metrics(
            {
                "training_step": step, "episode": step * prompts * samples, "scores": sum(scores) / len(scores),
                "val/total_reward_groups": float(prompts), "val/sequence_lengths": 3.0, "time/training": 0.5,
                "time/group_generation_max": 0.25, "learner_tokens_per_second_step": 1000.0, "loss/total_avg": 0.01,
            }
        )  # fmt: skip
        if step % int(args.checkpoint_state_freq) == 0:
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text(json.dumps({"step": step}))
            logger.info(f"Saved checkpoint state at step {step} to {state.parent}")
    logger.info(f"Saving final model at step {steps} to {output}")
    shutil.copytree(args.model_name_or_path, output)
    # As transformers 5 writes it: no version 4 understands these.
    (output / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    weights = load_file(output / "model.safetensors")
    save_file({name: weight * 1.01 for name, weight in weights.items()}, output / "model.safetensors")
    (output / ".checkpoint_complete").touch()
    logger.info("finished training")


if __name__ == "__main__":
    main()
