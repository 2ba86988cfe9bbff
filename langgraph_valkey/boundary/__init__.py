"""The boundary: after a commit a thread's checkpoint goes to a tier, and comes back from there."""
