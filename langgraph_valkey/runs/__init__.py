"""Runs: turns that are recorded before they begin, and brought to their end."""
