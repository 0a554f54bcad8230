"""Seeded chaos: users and faults at once, and an observer that reads the API's history. See ``python -m chaos -h``."""
