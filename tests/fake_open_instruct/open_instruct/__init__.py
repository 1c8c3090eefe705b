"""Stands for Open-Instruct: the files, flags, log and checkpoints of its grpo_fast.py, without any training."""
