"""Choosing a threshold and guards from examples."""
