"""Ready suites for "other tasks" in the gate: rows that come with the package, and tasks of lm-evaluation-harness.

A suite looks to the gate like a watched skill whose tasks are all in the test split. Training never sees one.
"""

from rft_ilab.suites.environment import SuiteEnvironment, answering
from rft_ilab.suites.loading import load_suite
from rft_ilab.suites.naming import PREFIX, check_suites, parse_suites

__all__ = ["PREFIX", "SuiteEnvironment", "answering", "check_suites", "load_suite", "parse_suites"]
