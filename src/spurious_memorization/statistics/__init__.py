"""Counts, intervals, tests and verdicts."""
