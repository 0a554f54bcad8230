"""The providers, one a module."""
