"""rft-ilab: verified data, verifiable-reward RL and regression grading for InstructLab.

Importing this package loads nothing but the standard library: every pydantic process in the
environment imports it (see ``rft_ilab.host.hook``), and ``ilab --help`` must stay quick.
"""

__version__ = "0.1.0"
