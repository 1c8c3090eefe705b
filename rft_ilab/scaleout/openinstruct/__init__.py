"""The RL stage on Open-Instruct's ``grpo_fast.py``: a process of another environment, reached by files and HTTP.

model_shape, memory, speed   arithmetic on a model and a GPU
plan, flags, plan_text       who learns and who samples; the command line of it; the same for people
dataset                      the Parquet directory that it reads
cluster, cluster_probe       what a Ray cluster has
graders                      the grader server that its rewards ask
launch, follow               start, watch, stop
site, checkpoint             where Open-Instruct is; the finished model, as this package's own engine reads it
rlvr, verifier_graders,      its data sets and verifiers, read as tasks and graders of ours
instructions

cluster_probe, launcher, verifier, grader_client and preflight are copied to where the rewards run, in Open-Instruct's
Python: they import nothing of rft_ilab.
"""
