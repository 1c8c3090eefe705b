"""The RL stage on Open-Instruct's ``grpo_fast.py``: a process of another environment, reached by files and HTTP.

shape, memory, speed   arithmetic on a model and a GPU
plan, flags, words     who learns and who samples; the command line of it; the same for people
dataset                the Parquet directory that it reads
cluster, oncluster     what a Ray cluster has (oncluster.py runs in Open-Instruct's Python)
graders                the grader server that its rewards ask, and what it counts
launch, follow         start, watch, stop
launcher, verifier,    rewards, in Open-Instruct's Python: they import nothing of rft_ilab
grader_client, preflight
checkpoint             the finished model, as this package's own engine reads it
"""
