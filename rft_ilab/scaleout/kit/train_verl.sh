#!/bin/sh
# GRPO with verl on the rows beside this file, rewarded by the grader server (see rft_rewards.py). For one node:
#   MODEL=Qwen/Qwen2.5-1.5B-Instruct sh train_verl.sh [further overrides of verl]
# Versions of verl whose configuration has no `reward` (before 0.7): drop `reward.` from the two keys of
# custom_reward_function, and the line below them.
# Keep the reward manager `naive`: `prime` makes a reward of 0 of an exception, and an outage would go unnoticed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/rft_rewards.py" "$here/preflight.json"
exec ${VERL:-python3 -m verl.trainer.main_ppo} \
    algorithm.adv_estimator=grpo \
    data.train_files="$here/train.parquet" \
    data.val_files="$here/validation.parquet" \
    data.prompt_key=prompt \
    data.train_batch_size="${PROMPTS:-64}" \
    data.max_prompt_length="${PROMPT_TOKENS:-1024}" \
    data.max_response_length="${ANSWER_TOKENS:-256}" \
    reward.custom_reward_function.path="$here/rft_rewards.py" \
    reward.custom_reward_function.name=compute_score \
    reward.reward_manager.name=naive \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.actor.optim.lr="${LEARNING_RATE:-1e-6}" \
    actor_rollout_ref.actor.ppo_mini_batch_size="${PROMPTS:-64}" \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n="${GROUP:-8}" \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8 \
    trainer.n_gpus_per_node="${GPUS:-1}" \
    trainer.nnodes=1 \
    trainer.total_epochs="${EPOCHS:-1}" \
    trainer.project_name=rft-ilab \
    trainer.experiment_name=verl \
    'trainer.logger=[console]' \
    "$@"
