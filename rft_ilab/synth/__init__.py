"""Verified synthetic data: nothing is kept that its grader does not accept."""
