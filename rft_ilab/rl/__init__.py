"""The RL stage: signal check, warm start, GRPO, checkpoint selection, export."""

# For its side effect: OpenMP's wait policy must be set before any module here loads torch.
import rft_ilab.policy.local  # noqa: F401
