"""Chaos: scenarios as data, run against real processes."""
