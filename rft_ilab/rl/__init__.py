"""The RL stage: signal check, warm start, GRPO, checkpoint selection, export."""
