"""Checks that run in our process: cheap, exact, one file a family."""
