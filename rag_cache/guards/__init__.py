"""What may speak against serving a cached answer, each for a reason of its own."""
