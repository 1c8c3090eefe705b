"""The two names that a verifier imports."""

from dataclasses import dataclass


@dataclass
class VerificationResult:
    score: float


class VerifierFunction:
    def __init__(self, name, weight=1.0, verifier_config=None):
        self.name, self.weight, self.verifier_config = name, weight, verifier_config
