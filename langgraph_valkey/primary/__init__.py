"""The primary store: what is committed, which runs are under way, what was deleted for good."""
