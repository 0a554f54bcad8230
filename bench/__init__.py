"""Measurements: each against what it is compared to, in one run."""
