"""Stages in order: verified data, training, gate. What the commands and the training hook call."""

from rft_ilab.pipeline.aa import against_itself
from rft_ilab.pipeline.gate import regress
from rft_ilab.pipeline.generated import verify_generated
from rft_ilab.pipeline.request import Request
from rft_ilab.pipeline.stages import run_all, train, verify_data

__all__ = ["Request", "against_itself", "regress", "run_all", "train", "verify_data", "verify_generated"]
