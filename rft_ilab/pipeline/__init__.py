"""Stages in order: verified data, training, gate. What the commands and the training hook call."""

from rft_ilab.pipeline.aa import against_itself
from rft_ilab.pipeline.baselines import save_baseline
from rft_ilab.pipeline.gate import regress
from rft_ilab.pipeline.generated import verify_generated
from rft_ilab.pipeline.judging import base_tree
from rft_ilab.pipeline.request import Request
from rft_ilab.pipeline.stages import run_all, train, verify_data
from rft_ilab.pipeline.standalone import gate_run

__all__ = [
    "Request",
    "against_itself",
    "base_tree",
    "gate_run",
    "regress",
    "run_all",
    "save_baseline",
    "train",
    "verify_data",
    "verify_generated",
]
