"""Tiers: each kind of state in its place, behind one object."""
