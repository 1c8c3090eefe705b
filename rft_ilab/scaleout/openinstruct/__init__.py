"""Open-Instruct's ``grpo_fast.py`` as the engine of the RL stage: its data, its launch, its rewards."""
